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
	return handle(c.Info, c.ArgsType(), c.ResultType(), func(ctx context.Context, args any) (any, error) {
		return fn(ctx, *args.(*A))
	})
}

// HandleStream is Handle for a result that is too large to be held in memory:
// the function writes the reply's value itself. Once it has written more than
// a few kilobytes it must not fail any more, because the beginning of the
// reply may be on its way.
func HandleStream[A, R any](c qga.Command[A, R], fn func(context.Context, A, *wire.Writer) error) Handler {
	return handleStream(c.Info, c.ArgsType(), func(ctx context.Context, args any, w *wire.Writer) error {
		return fn(ctx, *args.(*A), w)
	})
}

// handle and handleStream are what is the same for all commands. Each command
// has its own copy of the code that knows its types: there should be little.
// The args are a pointer to a value of argsType.
func handle(info qga.Info, argsType, resultType reflect.Type, fn func(ctx context.Context, args any) (any, error)) Handler {
	encoder := wire.EncoderOf(resultType)
	return handleStream(info, argsType, func(ctx context.Context, args any, w *wire.Writer) error {
		result, err := fn(ctx, args)
		if err != nil {
			return err
		}
		encoder.Encode(w, reflect.ValueOf(result))
		return nil
	})
}

func handleStream(info qga.Info, argsType reflect.Type, fn func(ctx context.Context, args any, w *wire.Writer) error) Handler {
	decoder := wire.ArgsDecoderOf(argsType)
	return Handler{info, func(ctx context.Context, v wire.Value, w *wire.Writer) error {
		args := reflect.New(argsType)
		if err := decoder.Decode(v, args.Elem()); err != nil {
			return err
		}
		return fn(ctx, args.Interface(), w)
	}}
}

// protocolError is the one place where an error becomes what the client sees.
func protocolError(err error) *qga.Error {
	if e, ok := errors.AsType[*qga.Error](err); ok {
		return e
	}
	return qga.Failure(err.Error())
}
