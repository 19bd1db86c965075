package files

import (
	"path"
	"strings"
)

// unknown is the type of files that are only stored: no browser makes something else of it.
const unknown = "application/octet-stream"

// types are the media types by the ending of a name. The tables of the machine do not count: they differ, and some are wrong.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8", ".xhtml": "application/xhtml+xml",
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", // RFC 9239
	".json": "application/json", ".map": "application/json", ".webmanifest": "application/manifest+json", ".wasm": "application/wasm",
	".txt": "text/plain; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".xml": "application/xml", ".xsl": "application/xslt+xml", ".rss": "application/rss+xml", ".atom": "application/atom+xml",
	".vtt": "text/vtt; charset=utf-8", ".ics": "text/calendar; charset=utf-8", ".yaml": "application/yaml", ".yml": "application/yaml",

	".svg": "image/svg+xml", ".png": "image/png", ".apng": "image/apng", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
	".webp": "image/webp", ".avif": "image/avif", ".jxl": "image/jxl", ".ico": "image/x-icon", ".cur": "image/x-icon", ".bmp": "image/bmp",
	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".eot": "application/vnd.ms-fontobject",

	".mp3": "audio/mpeg", ".m4a": "audio/mp4", ".aac": "audio/aac", ".oga": "audio/ogg", ".ogg": "audio/ogg", ".opus": "audio/ogg",
	".wav": "audio/wav", ".flac": "audio/flac", ".weba": "audio/webm",
	".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg", ".mov": "video/quicktime",
	".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml", ".glb": "model/gltf-binary", ".gltf": "model/gltf+json",

	".pdf": "application/pdf", ".zip": "application/zip", ".gz": "application/gzip", ".tar": "application/x-tar",
}

// typeOf is the media type of a file by its name.
func typeOf(name string) (kind string, known bool) {
	if kind, known = types[strings.ToLower(path.Ext(name))]; known {
		return kind, true
	}
	return unknown, false
}
