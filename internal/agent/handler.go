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
	argsType reflect.Type
	decoder  wire.Decoder
	// Either call returns the result, which encoder writes, or stream writes it.
	// The args are a pointer to a value of argsType.
	call    func(ctx context.Context, args any) (any, error)
	encoder wire.Encoder
	stream  func(ctx context.Context, args any, w *wire.Writer) error
}

// Handle binds a command to the function that carries it out. The arguments
// are checked before the function sees them; binary ones are valid until it
// returns, unless with an *InUse. An error that is no *qga.Error becomes one of class
// GenericError.
//
// The function may be called for several clients at once.
func Handle[A, R any](c qga.Command[A, R], fn func(context.Context, A) (R, error)) Handler {
	h := handler(c)
	h.encoder = wire.EncoderOf(c.ResultType())
	h.call = func(ctx context.Context, args any) (any, error) { return fn(ctx, *args.(*A)) }
	return h
}

// HandleStream is Handle for a result that is too large to be held in memory:
// the function writes the reply's value itself. Once it has written more than
// a few kilobytes it must not fail any more, because the beginning of the
// reply may be on its way.
func HandleStream[A, R any](c qga.Command[A, R], fn func(context.Context, A, *wire.Writer) error) Handler {
	h := handler(c)
	h.stream = func(ctx context.Context, args any, w *wire.Writer) error { return fn(ctx, *args.(*A), w) }
	return h
}

// handler is what is the same for all commands. Each command has its own copy of
// the code that knows its types: there should be little.
func handler(c qga.Descriptor) Handler {
	return Handler{Info: c.Describe(), argsType: c.ArgsType(), decoder: wire.ArgsDecoderOf(c.ArgsType())}
}

// arguments checks and decodes the arguments.
func (h *Handler) arguments(v wire.Value) (any, error) {
	args := reflect.New(h.argsType)
	if err := h.decoder.Decode(v, args.Elem()); err != nil {
		return nil, err
	}
	return args.Interface(), nil
}

// An InUse is the error of a command that was given up, while its binary arguments
// are in use until a channel is closed.
type InUse struct {
	Err   error
	Until <-chan struct{}
}

func (e *InUse) Error() string { return e.Err.Error() }
func (e *InUse) Unwrap() error { return e.Err }

// protocolError is the one place where an error becomes what the client sees.
func protocolError(err error) *qga.Error {
	if e, ok := errors.AsType[*qga.Error](err); ok {
		return e
	}
	return qga.Failure(err.Error())
}
