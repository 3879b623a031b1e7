package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// Call makes one call and waits for its result. The package's documentation
// says what the errors are.
//
// A command that is silent when it succeeds has succeeded when the connection
// ends, or when Client.SilentWait has passed without an error reply.
func Call[A, R any](ctx context.Context, c *Client, cmd qga.Command[A, R], args A) (R, error) {
	var encode func(*wire.Writer)
	if t := cmd.ArgsType(); t != reflect.TypeFor[qga.Empty]() {
		encode = func(w *wire.Writer) { encoderOf(t).Encode(w, reflect.ValueOf(args)) }
	}
	var result R
	err := c.do(ctx, cmd.Info, encode, func(v wire.Value) error {
		if err := decoderOf(cmd.ResultType()).Decode(v, reflect.ValueOf(&result).Elem()); err != nil {
			// Not %w: it is not the agent that says so.
			return fmt.Errorf("%w: %v", ErrProtocol, err) //nolint:errorlint
		}
		return nil
	})
	if err != nil {
		var none R
		return none, err
	}
	return result, nil
}

// errNotObject is that CallRaw was given something else.
var errNotObject = errors.New("the arguments are not a JSON object")

// CallRaw is Call for any command, known or not, with its arguments and its
// result in JSON. The arguments are an object, or nil for none. The result of a
// silent command is nil.
func (c *Client) CallRaw(ctx context.Context, command string, args json.RawMessage) (json.RawMessage, error) {
	info := qga.Info{Name: command}
	for _, d := range qga.Commands() {
		if d.Describe().Name == command {
			info = d.Describe()
		}
	}
	var encode func(*wire.Writer)
	if args != nil {
		// On one line, for agents to which a line is a request.
		var line bytes.Buffer
		if err := json.Compact(&line, args); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", command, errNotObject, err)
		}
		if line.Bytes()[0] != '{' {
			return nil, fmt.Errorf("%s: %w", command, errNotObject)
		}
		encode = func(w *wire.Writer) { w.Raw(line.String()) }
	}
	var result json.RawMessage
	err := c.do(ctx, info, encode, func(v wire.Value) error {
		result = wire.AppendValue(nil, v)
		return nil
	})
	return result, err
}

// The codecs of the types that have been called with, by reflect.Type.
var encoders, decoders sync.Map

func encoderOf(t reflect.Type) wire.Encoder {
	e, ok := encoders.Load(t)
	if !ok {
		e, _ = encoders.LoadOrStore(t, wire.EncoderOf(t))
	}
	return e.(wire.Encoder)
}

func decoderOf(t reflect.Type) wire.Decoder {
	d, ok := decoders.Load(t)
	if !ok {
		d, _ = decoders.LoadOrStore(t, wire.ResultDecoderOf(t))
	}
	return d.(wire.Decoder)
}
