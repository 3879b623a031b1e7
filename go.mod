module github.com/bellhop-vm/bellhop

go 1.26.0

require github.com/segmentio/asm v1.2.1

require golang.org/x/sys v0.49.0

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
)
