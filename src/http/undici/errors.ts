/**
 * What Node and undici throw, in the terms of http-error.ts. Which kind it is follows from how far the
 * request had got more than from the error itself. Words of libraries and servers are cut and cleaned.
 */
import { isIP } from "node:net";
import { HttpError, type HttpErrorKind } from "../http-error.js";
import { ConnectionGone } from "./client.js";
import { NotConnected } from "./connect-tcp.js";
import { type DialState, HandshakeEnded, type Route } from "./dialer.js";

/** Words for the system's errors and undici's. Sources: errno(3); undici, lib/core/errors.js. */
const WORDS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EADDRNOTAVAIL: "no local address or port is free",
  ECONNABORTED: "connection aborted",
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset",
  EHOSTDOWN: "the host is down",
  EHOSTUNREACH: "no route to the host",
  EMFILE: "too many open files",
  ENETDOWN: "the network is down",
  ENETUNREACH: "the network is unreachable",
  ENFILE: "too many open files",
  ENOBUFS: "no buffer space left",
  EPIPE: "connection closed",
  ETIMEDOUT: "connection timed out",
  UND_ERR_SOCKET: "connection closed",
};

const MAX_WORDS = 200;
/** Of undici's messages, before what matters. */
const PREFIX = /^Response does not match the HTTP\/1\.1 protocol |^Hostname\/IP /;

/** What happened, in a few words without an end mark. */
function causeOf(error: unknown): string {
  if (error instanceof NotConnected) return causeOf(error.cause);
  if (error instanceof HandshakeEnded || error instanceof ConnectionGone)
    return "connection closed";
  const { code = "", reason, message = "" } = error as NodeJS.ErrnoException & { reason?: string };
  if (code === "ERR_SSL_WRONG_VERSION_NUMBER") return "the server does not speak TLS here";
  const words = WORDS[code] ?? reason ?? message.replace(PREFIX, "");
  return clean(words) || "no reason given";
}

function clean(words: string): string {
  return words
    .slice(0, MAX_WORDS)
    .replace(/[^\x20-\x7e]+/g, " ")
    .replace(/[.;\s]+$/, "");
}

/** Codes of OpenSSL's verification, and Node's for a name that is not in the certificate. */
const CERTIFICATE =
  /^(?:UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|CRL_|INVALID_(?:CA|PURPOSE)$|PATH_LENGTH_|HOSTNAME_MISMATCH$|ERR_TLS_CERT_)/;

/** Why no connection came about. */
export function dialError(error: unknown, route: Route, state: DialState): HttpError {
  if (error instanceof HttpError && state.stage !== "name") return error;
  const { target, proxy } = route;
  const address = error instanceof NotConnected ? error.address : state.address;
  const isToProxy = proxy !== undefined && state.stage !== "tls";
  const host = isToProxy ? proxy.label : target.label;
  const place = isToProxy ? `the proxy ${at(host, address)}` : placeOf(route, address);
  const code = (error as NodeJS.ErrnoException).code ?? "";
  if (state.stage === "name") {
    const { message } = error as Error;
    return make(
      isToProxy ? "proxy" : "name",
      isToProxy ? `${message} (a proxy)` : message,
      route,
      error,
    );
  }
  if (state.stage === "tcp") {
    const message = `cannot connect to ${place}: ${causeOf(error)}`;
    return make(isToProxy ? "proxy" : "unreachable", message, route, error);
  }
  if (state.stage === "tunnel") {
    const message = `${place} does not connect to ${target.label}: ${causeOf(error)}`;
    return make("proxy", message, route, error);
  }
  if (CERTIFICATE.test(code)) {
    const message = `the TLS certificate of ${place} was not accepted: ${causeOf(error)}`;
    return make("certificate", message, route, error);
  }
  const kind = isToProxy ? "proxy" : "tls";
  return make(kind, `no TLS connection to ${place}: ${causeOf(error)}`, route, error);
}

/** How far a response had got. */
export interface ResponseState {
  readonly hasHead: boolean;
  readonly bodyBytes: number;
}

/** Why a request that was sent has no response. */
export function exchangeError(
  error: unknown,
  route: Route,
  address: string,
  response: ResponseState,
): HttpError {
  if (error instanceof HttpError) return error;
  const place = placeOf(route, address);
  const code = (error as NodeJS.ErrnoException).code ?? "";
  const { name, message: words } = error as Error;
  const isParserError = name === "HTTPParserError";
  const isEnd = code === "UND_ERR_RES_CONTENT_LENGTH_MISMATCH" || /Invalid EOF/.test(words);
  if (code === "UND_ERR_INVALID_ARG" || code === "UND_ERR_NOT_SUPPORTED") {
    return make(
      "invalid-request",
      `the request to ${place} cannot be sent: ${causeOf(error)}`,
      route,
      error,
    );
  }
  if ((isParserError || isEnd) && !(response.hasHead && isEnd)) {
    return make("protocol", `what ${place} sent is not HTTP/1.1: ${causeOf(error)}`, route, error);
  }
  if (code === "UND_ERR_HEADERS_OVERFLOW") {
    return make(
      "head-too-long",
      `the response of ${place} has trailers that are too long`,
      route,
      error,
    );
  }
  if (response.hasHead) {
    const message = `the response of ${place} was cut short after ${response.bodyBytes} bytes: ${causeOf(error)}`;
    return make("body-cut-short", message, route, error);
  }
  if (code.startsWith("ERR_SSL_")) {
    return make("tls", `TLS failed with ${place}: ${causeOf(error)}`, route, error);
  }
  const message = `the connection to ${place} ended before a response: ${causeOf(error)}`;
  return make("lost", message, route, error);
}

/** Nothing moved for `stallMs`. */
export function stallError(route: Route, state: DialState, stallMs: number): HttpError {
  const { target, proxy } = route;
  const time = `${Math.round(stallMs / 100) / 10} s`;
  const first = proxy === undefined ? target.label : `the proxy ${proxy.label}`;
  const kinds =
    proxy === undefined ? (["name", "unreachable"] as const) : (["proxy", "proxy"] as const);
  if (state.stage === "name") {
    return make(
      kinds[0],
      `cannot look up the address of ${first}: no result within ${time}`,
      route,
    );
  }
  if (state.stage === "tcp") {
    return make(kinds[1], `cannot connect to ${first}: no response within ${time}`, route);
  }
  const place = placeOf(route, state.address);
  const message = `nothing moved on the connection to ${place} for ${time}`;
  return make("stalled", message, route);
}

export function make(
  kind: HttpErrorKind,
  message: string,
  { target, proxy }: Route,
  cause?: unknown,
): HttpError {
  const between = proxy === undefined ? {} : { proxy: proxy.label };
  return new HttpError({ kind, message, host: target.label, ...between }, { cause });
}

/** The host with its address, and the proxy on the way. */
export function placeOf({ target, proxy }: Route, address: string | undefined): string {
  if (proxy === undefined) return at(target.label, address);
  return `${target.label} through the proxy ${at(proxy.label, address)}`;
}

function at(label: string, address: string | undefined): string {
  const isKnown = address === undefined || label.startsWith("[") || isIP(label.split(":")[0] ?? "");
  return isKnown ? label : `${label} (${address})`;
}
