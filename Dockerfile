# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev ca-certificates \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# Sources and compiled dependencies stay in the builder's cache from one build to the next; the program is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin quaymaster \
    && cp target/release/quaymaster /usr/local/bin/quaymaster
# A new volume inherits the owner of the folder that it is mounted on.
RUN install -d -o 10001 -g 10001 /tmp/data

FROM debian:12.11-slim
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/bin/quaymaster /usr/local/bin/quaymaster
COPY --from=build --chown=10001:10001 /tmp/data /var/lib/quaymaster
ENV QUAYMASTER_SERVER__HOST=0.0.0.0 \
    QUAYMASTER_EMBEDDED__HOST=0.0.0.0 \
    QUAYMASTER_DATA_DIR=/var/lib/quaymaster
USER 10001:10001
VOLUME /var/lib/quaymaster
# 8080: the API. 9000: the embedded store, used if AWS_BUCKET is not set.
EXPOSE 8080 9000
# The image has no HTTP client, so the program calls its own /healthz. Not /readyz: while the store or the database is
# unavailable, an orchestrator would kill all replicas.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["quaymaster", "health"]
ENTRYPOINT ["quaymaster"]
CMD ["serve"]
