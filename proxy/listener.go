package proxy

import (
	"context"
	"net/http"
)

// listenerKey finds the name of the listener in the context of its requests.
type listenerKey struct{}

// WithListener names the listener of all requests whose contexts come from the one it returns.
func WithListener(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, listenerKey{}, name)
}

func listenerOf(r *http.Request) string {
	name, _ := r.Context().Value(listenerKey{}).(string)
	return name
}
