/**
 * Reads the head of an HTTP/1.1 answer, of the plain kind that block servers send: a status, headers
 * and a body of known length, or a small one in chunks. Everything else (interim answers, HTTP/1.0)
 * is called not plain, and the caller leaves it to node:http, which knows all of HTTP.
 */

/** An answer, or a request, that is left to node:http. */
export class NotPlain extends Error {}

export interface ResponseHead {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: Record<string, string>;
  /** Bytes in the body; undefined where it comes in chunks. */
  readonly length: number | undefined;
  /** The connection can take another request after this answer. */
  readonly keepAlive: boolean;
}

/** @param text status line and header lines, without the empty line at the end. */
export function readResponseHead(text: string): ResponseHead | undefined {
  const lines = text.split("\r\n");
  const status = /^HTTP\/1\.1 ([2-5]\d\d)(?: |$)/.exec(lines[0] as string)?.[1];
  if (status === undefined || status === "204" || status === "304") return undefined;
  const headers: Record<string, string> = Object.create(null);
  for (let i = 1; i < lines.length; i += 1) {
    const line = lines[i] as string;
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    // A folded line, a name that is none, or a header that comes twice: not plain.
    if (colon <= 0 || !/^[a-z0-9!#$%&'*+.^_`|~-]+$/.test(name) || name in headers) return undefined;
    headers[name] = line.slice(colon + 1).trim();
  }
  const length = headers["content-length"];
  const coding = headers["transfer-encoding"];
  const isChunked = coding?.toLowerCase() === "chunked" && length === undefined;
  const isPlain = coding === undefined && length !== undefined && /^\d{1,9}$/.test(length);
  if ((!isChunked && !isPlain) || "upgrade" in headers) return undefined;
  return {
    status: Number(status),
    headers: { ...headers },
    length: isChunked ? undefined : Number(length),
    keepAlive: !/close/i.test(headers.connection ?? ""),
  };
}

/**
 * The body that a small chunked message carries.
 * @returns undefined where more is to come.
 * @throws NotPlain where it is malformed, has trailers or goes on after its end.
 */
export function readChunkedBody(raw: Uint8Array): Uint8Array | undefined {
  const text = Buffer.from(raw.buffer, raw.byteOffset, raw.length).toString("latin1");
  const parts: Uint8Array[] = [];
  for (let at = 0; ; ) {
    const lineEnd = text.indexOf("\r\n", at);
    if (lineEnd < 0) return undefined;
    const size = /^([0-9a-f]{1,6})(?:;.*)?$/i.exec(text.slice(at, lineEnd))?.[1];
    if (size === undefined) throw new NotPlain();
    const start = lineEnd + 2;
    const end = start + Number.parseInt(size, 16);
    if (end + 2 > text.length) return undefined;
    if (text.slice(end, end + 2) !== "\r\n") throw new NotPlain();
    if (end > start) parts.push(raw.subarray(start, end));
    else if (end + 2 === text.length) return Buffer.concat(parts);
    else throw new NotPlain();
    at = end + 2;
  }
}
