// Package routes finds the handler of a request by listener, host and path. It knows net/http alone: a Table is built once,
// never changes, and may be asked from any number of goroutines; captures travel as the request's path values.
package routes
