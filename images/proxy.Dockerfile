# The proxy of a Gateway: Envoy, and the `tollgate` that gets its certificate, starts it and ends it in order.
#   docker build -f images/proxy.Dockerfile target/dist
FROM docker.io/envoyproxy/envoy:distroless-v1.40.0@sha256:0000000000000000000000000000000000000000000000000000000000000000
COPY tollgate /usr/local/bin/tollgate
ENV MIMALLOC_PURGE_DELAY=0
USER 65532:65532
EXPOSE 15021
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["proxy", "--help"]
