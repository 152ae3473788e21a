package wire

import (
	"context"
	"encoding/json"

	"github.com/varlink/go/varlink"
)

// ReplyPermissionDenied answers that the caller may not call this method, or not so. The library
// refuses to send this error, as it does all of org.varlink.service that it does not know.
func ReplyPermissionDenied(ctx context.Context, c varlink.Call) error {
	return replyError(ctx, c, "org.varlink.service.PermissionDenied", nil)
}

// ReplyExpectedMore answers that the method wants to be called with more.
func ReplyExpectedMore(ctx context.Context, c varlink.Call) error {
	return replyError(ctx, c, "org.varlink.service.ExpectedMore", nil)
}

// ReplyInvalidParameter answers that the named parameter does not do.
func ReplyInvalidParameter(ctx context.Context, c varlink.Call, parameter string) error {
	return replyError(ctx, c, "org.varlink.service.InvalidParameter", map[string]string{"parameter": parameter})
}

type errorReply struct {
	Parameters any    `json:"parameters,omitempty"`
	Error      string `json:"error"`
}

func replyError(ctx context.Context, c varlink.Call, name string, parameters any) error {
	if c.IsOneway() {
		return nil
	}
	b, err := json.Marshal(errorReply{parameters, name})
	if err != nil {
		return err
	}
	_, err = c.Conn.Write(ctx, append(b, 0))
	return err
}
