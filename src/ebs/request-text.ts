/** The SDK's request as text on the wire: host, path with query, and head. */
import type { HandlerRequest } from "./exchange.js";
import { NotPlain } from "./response-head.js";

/** The host without the brackets that a URL puts around an IPv6 address. */
export function bareHost(toSend: HandlerRequest): string {
  return toSend.hostname.replace(/^\[|\]$/g, "");
}

/** The request's head as it goes over the wire. */
export function requestHead(toSend: HandlerRequest): string {
  let head = `${toSend.method} ${pathOf(toSend)} HTTP/1.1\r\n`;
  for (const [name, value] of Object.entries(toSend.headers)) {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get in.
    if (/[\x00-\x1f\x7f]/.test(value)) throw new NotPlain();
    head += `${name}: ${value}\r\n`;
  }
  return `${head}\r\n`;
}

/** Path and query, escaped as they were signed. */
export function pathOf(toSend: HandlerRequest): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(toSend.query ?? {}).sort()) {
    if (Array.isArray(value)) for (const one of value) parts.push(pair(name, one));
    else parts.push(value === null ? escapeUri(name) : pair(name, value));
  }
  return parts.length === 0 ? toSend.path : `${toSend.path}?${parts.join("&")}`;
}

function pair(name: string, value: string): string {
  return `${escapeUri(name)}=${escapeUri(value)}`;
}

/** RFC 3986, as signature v4 counts it: also ! ' ( ) * are escaped. */
function escapeUri(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
