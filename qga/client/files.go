package client

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/bellhop-vm/bellhop/qga"
)

// chunk is how much of a file goes into one call: enough that the round trips
// do not count, and little enough for every road and for the agent's memory.
const chunk = 1 << 20

// closeTimeout limits closing a file after its call has run out of time.
const closeTimeout = 2 * time.Second

// ReadFile returns the contents of a file of the guest.
func (c *Client) ReadFile(ctx context.Context, path string) (data []byte, err error) {
	mode := "rb"
	h, err := Call(ctx, c, qga.FileOpen, qga.FileOpenArgs{Path: path, Mode: &mode})
	if err != nil {
		return nil, err
	}
	// What was read is as good if the file cannot be closed.
	defer c.closeFile(ctx, h)
	count := int64(chunk)
	for {
		r, err := Call(ctx, c, qga.FileRead, qga.FileReadArgs{Handle: h, Count: &count})
		if err != nil {
			return nil, err
		}
		if data == nil {
			data = r.Data
		} else {
			data = append(data, r.Data...)
		}
		// Windows agents notice the end only when nothing is left.
		if r.EOF || len(r.Data) == 0 {
			return data, nil
		}
	}
}

// WriteFile makes data the contents of a file of the guest, which is created,
// with permissions of the agent's choice, if it is not there. When it fails the
// file may have been written in part.
func (c *Client) WriteFile(ctx context.Context, path string, data []byte) (err error) {
	mode := "wb"
	h, err := Call(ctx, c, qga.FileOpen, qga.FileOpenArgs{Path: path, Mode: &mode})
	if err != nil {
		return err
	}
	defer func() {
		// Agents may write only now, and fail.
		if closeErr := c.closeFile(ctx, h); err == nil {
			err = closeErr
		}
	}()
	for len(data) > 0 {
		p := data[:min(chunk, len(data))]
		r, err := Call(ctx, c, qga.FileWrite, qga.FileWriteArgs{Handle: h, Data: p})
		if err != nil {
			return err
		}
		if r.Count < 1 || r.Count > int64(len(p)) {
			return fmt.Errorf("%s: %d of %d bytes: %w", qga.FileWrite.Name, r.Count, len(p), io.ErrShortWrite)
		}
		data = data[r.Count:]
	}
	return nil
}

// closeFile closes a file even if ctx has ended: an agent keeps what is open
// until it is told otherwise.
func (c *Client) closeFile(ctx context.Context, h qga.Handle) error {
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
	}
	_, err := Call(ctx, c, qga.FileClose, qga.HandleArgs{Handle: h})
	return err
}
