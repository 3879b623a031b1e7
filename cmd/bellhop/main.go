// Command bellhop is the host's tool for QEMU guests: it talks to the guest
// agent in them. "bellhop help" tells the rest.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/bellhop-vm/bellhop/internal/host"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := host.Run(ctx, version, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
