package agent

import (
	"context"
	"errors"
	"reflect"

	"github.com/bellhop-vm/bellhop/qga"
	"github.com/bellhop-vm/bellhop/qga/wire"
)

// A Handler is a command as the agent offers it: its descriptor, and a function
// that carries it out. Handle and HandleStream make one.
type Handler struct {
	qga.Info
	// serve decodes the arguments, does the work and writes the value of the
	// reply.
	serve func(ctx context.Context, args wire.Value, w *wire.Writer) error
}

// Handle binds a command to the function that carries it out. The arguments
// are checked before the function sees them; binary ones are valid until it
// returns. An error that is no *qga.Error becomes one of class GenericError.
//
// The function may be called for several clients at once.
func Handle[A, R any](c qga.Command[A, R], fn func(context.Context, A) (R, error)) Handler {
	args, result := wire.ArgsDecoderOf(c.ArgsType()), wire.EncoderOf(c.ResultType())
	return Handler{c.Info, func(ctx context.Context, v wire.Value, w *wire.Writer) error {
		var a A
		if err := args.Decode(v, reflect.ValueOf(&a).Elem()); err != nil {
			return err
		}
		r, err := fn(ctx, a)
		if err != nil {
			return err
		}
		result.Encode(w, reflect.ValueOf(r))
		return nil
	}}
}

// HandleStream is Handle for a result that is too large to be held in memory:
// the function writes the reply's value itself. Once it has written more than
// a few kilobytes it must not fail any more, because the beginning of the
// reply may be on its way.
func HandleStream[A, R any](c qga.Command[A, R], fn func(context.Context, A, *wire.Writer) error) Handler {
	args := wire.ArgsDecoderOf(c.ArgsType())
	return Handler{c.Info, func(ctx context.Context, v wire.Value, w *wire.Writer) error {
		var a A
		if err := args.Decode(v, reflect.ValueOf(&a).Elem()); err != nil {
			return err
		}
		return fn(ctx, a, w)
	}}
}

// protocolError is the one place where an error becomes what the client sees.
func protocolError(err error) *qga.Error {
	if e, ok := errors.AsType[*qga.Error](err); ok {
		return e
	}
	return qga.Failure(err.Error())
}
