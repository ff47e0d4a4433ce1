# The control plane: the static binary with the filter inside, for each architecture that the context has a folder of.
#   cargo xtask dist && install -D target/dist/tollgate target/images/amd64/tollgate
#   docker build -f images/tollgate.Dockerfile target/images
FROM gcr.io/distroless/static-debian12:nonroot@sha256:d093aa3e30dbadd3efe1310db061a14da60299baff8450a17fe0ccc514a16639
ARG TARGETARCH
ARG VERSION=unreleased
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="tollgate" \
      org.opencontainers.image.description="The control plane of Tollgate, an LLM gateway inside Envoy and Istio" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
COPY --chmod=0755 ${TARGETARCH}/tollgate /usr/local/bin/tollgate
# Memory that the start has freed goes back to the machine at once (docs/adr/0004-memory.md).
ENV MIMALLOC_PURGE_DELAY=0
USER 65532:65532
EXPOSE 18000 18001 8080 8081
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve", "--help"]
