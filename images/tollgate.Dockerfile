# The control plane: the static binary with the filter inside. `cargo xtask dist` leaves it in target/dist.
#   docker build -f images/tollgate.Dockerfile target/dist
# The digest names what was looked at; scripts/CI replace it by the one that they have verified.
FROM gcr.io/distroless/static-debian12:nonroot@sha256:0000000000000000000000000000000000000000000000000000000000000000
COPY tollgate /usr/local/bin/tollgate
# Memory that the start has freed goes back to the machine at once (docs/adr/0004-memory.md).
ENV MIMALLOC_PURGE_DELAY=0
USER 65532:65532
EXPOSE 18000 18001 8080 8081
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve", "--help"]
