/**
 * Reads the text of a response's head: what libcurl writes for one request, that is the status lines and
 * headers of all interim (1xx) responses, of the final one, and its trailers. Only the final one counts.
 */

/**
 * @param text at most MAX_HEAD_BYTES, Latin-1.
 * @returns headers of the last status line's block, names in lower case; a name that comes twice is joined
 * with ", ". Lines that are no header are left out. undefined where the block has no end.
 */
export function readFinalHeaders(text: string): Record<string, string> | undefined {
  const headers: Record<string, string> = Object.create(null);
  const start = text.lastIndexOf("HTTP/");
  const from = lastStatusLine(text, start);
  for (let at = from; at < text.length; ) {
    const end = text.indexOf("\n", at);
    if (end < 0) return undefined;
    const line = text.slice(at, end).trimEnd();
    at = end + 1;
    if (line === "") return { ...headers };
    const colon = line.indexOf(":");
    if (colon <= 0) continue;
    const name = line.slice(0, colon).trimEnd().toLowerCase();
    const value = line.slice(colon + 1).trim();
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  return undefined;
}

/**
 * What is wrong with how a head tells its body's length; undefined if nothing is. A head that says two things
 * can be read in two ways, by a proxy on the way in another than here. Source: RFC 9112, section 6.3.
 */
export function wrongLength(headers: Readonly<Record<string, string>>): string | undefined {
  const length = headers["content-length"];
  if (length === undefined) return undefined;
  if (headers["transfer-encoding"] !== undefined) return "has both a length and chunks";
  if (!/^\d+$/.test(length)) return "has a length that is no number, or several";
  return undefined;
}

/** A head that starts with a status line of HTTP/1.0 or 1.1. */
export function isHttp1(text: string): boolean {
  return /^HTTP\/1\.[01] \d{3}/.test(text);
}

/** Where the last line that starts with HTTP/ ends; a value may hold the same letters. */
function lastStatusLine(text: string, found: number): number {
  for (let at = found; at >= 0; at = at === 0 ? -1 : text.lastIndexOf("HTTP/", at - 1)) {
    if (at === 0 || text[at - 1] === "\n") {
      const end = text.indexOf("\n", at);
      return end < 0 ? text.length : end + 1;
    }
  }
  return 0;
}
