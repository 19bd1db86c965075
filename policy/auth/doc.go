// Package auth finds out who a client is, before it gets its socket. An authenticator is one way of doing so: a signed token, an
// endpoint that decides, a key, a password, a signed link, a certificate. A Checker is what one route asks for: it admits a client
// by its authenticators, holds it to what the route requires of users and claims, and takes the tokens out of the request, so that
// no backend sees them. No error and no log line of the package holds a token.
//
// It is the home of go-jose and of golang.org/x/crypto.
package auth
