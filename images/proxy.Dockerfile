# The proxy of a Gateway: Envoy, and the `tollgate` that gets its certificate, starts it and ends it in order.
#   cargo xtask dist && install -D target/dist/tollgate target/images/amd64/tollgate
#   docker build -f images/proxy.Dockerfile --build-arg ENVOY_DIGEST=sha256:... target/images
# The digest has no default: whoever builds says which Envoy was looked at, and without it nothing is built.
ARG ENVOY_DIGEST
FROM docker.io/envoyproxy/envoy:distroless-v1.40.0@${ENVOY_DIGEST}
ARG TARGETARCH
ARG VERSION=unreleased
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="tollgate-proxy" \
      org.opencontainers.image.description="Envoy as the proxy of a Gateway of Tollgate" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="docker.io/envoyproxy/envoy:distroless-v1.40.0"
COPY --chmod=0755 ${TARGETARCH}/tollgate /usr/local/bin/tollgate
ENV MIMALLOC_PURGE_DELAY=0
USER 65532:65532
EXPOSE 15021
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["proxy", "--help"]
