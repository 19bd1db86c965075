# A static binary alone in its image. CI has no Docker engine and builds only what the first stage builds; the image itself is
# built by whoever publishes it:
#
#   docker build -t bridgehead .
#   docker run -p 80:80 -p 443:443 -v ./config.yaml:/etc/bridgehead/config.yaml:ro -v bridgehead:/var/lib/bridgehead bridgehead

FROM golang:1.27 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /out/bridgehead ./cmd/bridgehead \
	&& install -d -m 0700 /out/state

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/bridgehead /bridgehead
COPY --from=build --chown=65532:65532 /out/state /var/lib/bridgehead
USER 65532:65532
# Where `state` is when the configuration does not say: this user has no home.
ENV STATE_DIRECTORY=/var/lib/bridgehead
VOLUME /var/lib/bridgehead
EXPOSE 80 443
HEALTHCHECK CMD ["/bridgehead", "health"]
ENTRYPOINT ["/bridgehead"]
CMD ["serve", "-c", "/etc/bridgehead/config.yaml"]
