/**
 * What a CURLcode means in the terms of http-error.ts. The words come from libcurl's error buffer where it
 * says more than the code; they are cut and cleaned, because they can hold what a server sent.
 */
import { HttpError, type HttpErrorKind } from "../http-error.js";
import { CODE } from "./constants.js";

/** What is known of a transfer that failed. */
export interface FailedTransfer {
  readonly code: number;
  /** Of libcurl's error buffer, or of the code. */
  readonly words: string;
  /** errno of the last system call that failed, 0 if none did. */
  readonly osError: number;
  /** Status of the proxy's response to CONNECT, 0 if there was none. */
  readonly connectStatus: number;
  /** Bytes of the response's body that came. */
  readonly bodyBytes: number;
  /** The head was not complete. */
  readonly isInHead: boolean;
  /** Longest body allowed. */
  readonly maxBodyBytes: number;
  /** `host:port`, and the proxy's where there is one. */
  readonly host: string;
  readonly proxy: string | undefined;
  /** Through the proxy by CONNECT. */
  readonly isTunnelled: boolean;
}

/** Words for the system's errors that connections meet. Source: errno(3). */
const SYSTEM_ERRORS: Readonly<Record<number, string>> = {
  13: "permission denied",
  24: "too many open files",
  101: "network is unreachable",
  103: "connection aborted",
  104: "connection reset",
  110: "connection timed out",
  111: "connection refused",
  112: "host is down",
  113: "no route to host",
};

const MAX_WORDS = 200;

export function curlError(transfer: FailedTransfer): HttpError {
  const { host, proxy } = transfer;
  const [kind, message] = describe(transfer);
  return new HttpError({ kind, message, host, ...(proxy !== undefined && { proxy }) });
}

function describe(transfer: FailedTransfer): [HttpErrorKind, string] {
  const { code, host, proxy, connectStatus, bodyBytes, maxBodyBytes } = transfer;
  const words = clean(transfer.words);
  const between = proxy === undefined ? "" : ` through the proxy ${proxy}`;
  if (proxy !== undefined && connectStatus >= 300) {
    return ["proxy", `the proxy ${proxy} refused to connect to ${host} (status ${connectStatus})`];
  }
  switch (code) {
    case CODE.UNSUPPORTED_PROTOCOL:
      // Also for a response of another version of HTTP.
      if (/HTTP/.test(words)) return ["protocol", `what ${host} sent${between} is not HTTP/1.1`];
      return ["invalid-request", `the URL for ${host} cannot be used (${words})`];
    case CODE.URL_MALFORMAT:
      return ["invalid-request", `the URL for ${host} cannot be used (${words})`];
    case CODE.COULDNT_RESOLVE_PROXY:
    case CODE.PROXY:
      return ["proxy", `the proxy ${proxy ?? ""} cannot be used (${words})`];
    case CODE.COULDNT_RESOLVE_HOST:
      return ["name", `the name of ${host} was not found`];
    case CODE.COULDNT_CONNECT:
    case CODE.OPERATION_TIMEDOUT: {
      const cause = SYSTEM_ERRORS[transfer.osError] ?? words;
      if (proxy !== undefined) return ["proxy", `cannot connect to the proxy ${proxy}: ${cause}`];
      return ["unreachable", `cannot connect to ${host}: ${cause}`];
    }
    case CODE.WEIRD_SERVER_REPLY:
      return ["protocol", `what ${host} sent${between} is not HTTP/1.1 (${words})`];
    case CODE.PARTIAL_FILE:
      return ["body-cut-short", `the response of ${host} was cut short after ${bodyBytes} bytes`];
    case CODE.WRITE_ERROR:
    case CODE.TOO_LARGE:
    case CODE.OUT_OF_MEMORY:
      // libcurl has a limit for heads, too, and calls what is beyond it out of memory.
      if (transfer.isInHead) {
        return ["head-too-long", `the response of ${host} has a head that is too long`];
      }
      return tooLong(host, maxBodyBytes);
    case CODE.FILESIZE_EXCEEDED:
      return tooLong(host, maxBodyBytes);
    case CODE.SSL_CERTPROBLEM:
    case CODE.PEER_FAILED_VERIFICATION:
    case CODE.SSL_CACERT_BADFILE:
      return [
        "certificate",
        `the TLS certificate of ${host} was not accepted${between} (${words})`,
      ];
    case CODE.SSL_CONNECT_ERROR:
      return ["tls", `no TLS connection to ${host}${between} (${words})`];
    case CODE.GOT_NOTHING:
    case CODE.SEND_ERROR:
    case CODE.RECV_ERROR: {
      if (/chunk|hex/i.test(words)) {
        return ["protocol", `the response of ${host} has chunks that are malformed`];
      }
      if (bodyBytes > 0) {
        const cut = `the response of ${host} was cut short after ${bodyBytes} bytes`;
        return ["body-cut-short", cut];
      }
      if (transfer.isTunnelled && connectStatus !== 200) {
        return ["proxy", `the connection to ${host} through the proxy ${proxy} failed (${words})`];
      }
      const cause = SYSTEM_ERRORS[transfer.osError];
      const why = cause === undefined ? "" : `: ${cause}`;
      return ["lost", `the connection to ${host}${between} ended before a response${why}`];
    }
    default:
      return ["lost", `the request to ${host}${between} failed (${words})`];
  }
}

export function bodyTooLong(host: string, maxBodyBytes: number): HttpError {
  const [kind, message] = tooLong(host, maxBodyBytes);
  return new HttpError({ kind, message, host });
}

/** @param isConnected the connection was made. @param seconds without a byte. */
export function stallError(
  host: string,
  proxy: string | undefined,
  isConnected: boolean,
  seconds: number,
): HttpError {
  const details = { host, ...(proxy !== undefined && { proxy }) };
  if (isConnected) {
    const between = proxy === undefined ? "" : ` through the proxy ${proxy}`;
    const message = `nothing moved on the connection to ${host}${between} for ${seconds} s`;
    return new HttpError({ kind: "stalled", message, ...details });
  }
  const to = proxy === undefined ? host : `the proxy ${proxy}`;
  const message = `cannot connect to ${to}: no response within ${seconds} s`;
  return new HttpError({
    kind: proxy === undefined ? "unreachable" : "proxy",
    message,
    ...details,
  });
}

function tooLong(host: string, maxBodyBytes: number): [HttpErrorKind, string] {
  return ["body-too-long", `the response of ${host} has a body longer than ${maxBodyBytes} bytes`];
}

function clean(words: string): string {
  return words
    .slice(0, MAX_WORDS)
    .replace(/[^\x20-\x7e]+/g, " ")
    .trim();
}
