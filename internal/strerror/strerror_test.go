//go:build unix

package strerror

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

func TestText(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{syscall.ENOENT, "No such file or directory"},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.EISDIR}, "Is a directory"},
		{fmt.Errorf("seek: %w", syscall.ESPIPE), "Illegal seek"},
		{syscall.EXDEV, "Invalid cross-device link"},
		{syscall.ENXIO, "No such device or address"},
		{errors.New("plain words"), "plain words"},
	} {
		if got := Text(tt.err); got != tt.want {
			t.Errorf("Text(%#v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}
