package config

// borrowed says what keys of other programs are called here: those of nginx, Caddy, Traefik, HAProxy, websockify and the
// WebSocket libraries. Theirs are in lower case, without dashes and underscores.
var borrowed = map[string]string{
	"backend": "to", "destination": "to", "forwardto": "to", "proxypass": "to", "target": "to", "upstream": "to", "uri": "to", "url": "to",
	"backends": "upstreams", "services": "upstreams", "addresses": "servers", "loadbalancer": "servers",
	"reverseproxy": "websocket", "websockets": "websocket", "ws": "websocket", "wss": "websocket",
	"stream": "tcp", "unixtarget": "tcp", "callback": "webhook", "http": "webhook",
	"fileserver": "files", "root": "dir", "static": "files", "web": "files",

	"bind": "address", "listen": "address", "port": "address",
	"entrypoints": "listeners", "frontend": "listeners", "frontends": "listeners", "server": "listeners",
	"domain": "host", "hostname": "host", "servername": "host", "vhost": "host",
	"location": "path", "pathprefix": "path", "prefix": "path", "locations": "routes", "routers": "routes",

	"https": "tls", "ssl": "tls", "secure": "tls", "certfile": "cert", "keyfile": "key",
	"sslcertificate": "cert", "sslcertificatekey": "key", "insecureskipverify": "insecure", "acme": "certificates",
	"authentication": "auth", "authenticator": "auth", "authorization": "auth", "authrequest": "forward", "forwardauth": "forward",
	"apikeys": "api_key", "basicauth": "basic", "authbasic": "basic", "jwksuri": "jwks_url", "jwks": "jwks_url", "aud": "audience", "iss": "issuer",

	"allowedorigins": "origins", "alloworigin": "origins", "cors": "origins",
	"maxconn": "max_connections", "ratelimit": "limits", "limitreq": "limits", "limitconn": "limits", "requestheaders": "headers",
	"proxysetheader": "headers", "setrealipfrom": "trusted_proxies", "trustedips": "trusted_proxies", "realip": "trusted_proxies",
	"realipheader": "client_header", "clientipheaders": "client_header", "remoteipheader": "client_header",
	"ipallowlist": "addresses", "ipwhitelist": "addresses", "remoteip": "addresses", "sourcerange": "allow", "allowlist": "allow", "whitelist": "allow",
	"denylist": "deny", "blocklist": "deny", "blacklist": "deny",

	"heartbeat": "ping", "pinginterval": "ping", "pingtimeout": "pong", "idletimeout": "idle", "proxyreadtimeout": "idle",
	"timeouttunnel": "idle", "maxpayload": "message_size", "maxmessagesize": "message_size", "clientmaxbodysize": "body_size",
}
