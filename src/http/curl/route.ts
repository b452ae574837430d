/** How a request's connection is made: directly or through a proxy, and to which addresses. */
import { isIP } from "node:net";
import type { Target } from "../check-request.js";
import { abortError, HttpError } from "../http-error.js";
import type { ProxyRoute } from "../proxies.js";
import { hostAndPort } from "../proxies.js";
import { knownAddresses, resolveHost } from "../resolver.js";

export interface Route {
  /** Where the request goes, `host:port`, and the proxy between. */
  readonly host: string;
  readonly proxy: ProxyRoute | undefined;
  /** Through the proxy by CONNECT, as https: goes. */
  readonly isTunnelled: boolean;
  /** The name that was looked up; undefined for an address. */
  readonly name: string | undefined;
  /** Whom the connection is made to, the proxy or the host: letters, digits, dots and dashes. */
  readonly peer: string;
  readonly port: number;
  /** `address,address`, IPv6 in brackets. */
  readonly addresses: string;
  /** Equal for routes that need the same options. */
  readonly key: string;
}

/**
 * @param limitMs longest time for the look-up of a name. @param stop gives a signal that ends it.
 * @throws HttpError "name", or "proxy" where the proxy's name is not found; "aborted"
 */
export async function routeTo(
  target: Target,
  proxy: ProxyRoute | undefined,
  limitMs: number,
  stop: () => AbortSignal,
): Promise<Route> {
  const { hostname, port } =
    proxy === undefined ? target : { hostname: proxy.host, port: proxy.port };
  const isAddress = isIP(hostname) !== 0;
  const found = isAddress
    ? [hostname]
    : (knownAddresses(hostname) ?? (await lookUp(hostname, target, proxy, limitMs, stop())));
  const list = found.map((address) => (isIP(address) === 6 ? `[${address}]` : address)).join();
  return {
    host: target.label,
    proxy,
    isTunnelled: proxy !== undefined && target.isSecure,
    name: isAddress ? undefined : hostname,
    peer: hostname.replace(/[^A-Za-z0-9.-]/g, "-"),
    port,
    addresses: list,
    key: `${proxy?.label ?? ""} ${hostname}:${port}:${list}`,
  };
}

async function lookUp(
  name: string,
  { label: host }: Target,
  proxy: ProxyRoute | undefined,
  limitMs: number,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const kind = proxy === undefined ? "name" : "proxy";
  const fail = (message: string, cause?: unknown) =>
    new HttpError(
      { kind, message, host, ...(proxy !== undefined && { proxy: proxy.label }) },
      { cause },
    );
  let timer: NodeJS.Timeout | undefined;
  let abort = () => {};
  const ended = new Promise<never>((_resolve, reject) => {
    abort = () => reject(abortError("aborted", host));
    signal.addEventListener("abort", abort, { once: true });
    const late = `cannot look up the address of ${name}: no response within ${limitMs / 1000} s`;
    timer = setTimeout(() => reject(fail(late)), limitMs);
  });
  try {
    return await Promise.race([resolveHost(name), ended]);
  } catch (error) {
    if (!(error instanceof HttpError) || error.kind !== "name") throw error;
    throw fail(error.message, error);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

/** For CURLOPT_PROXY; user and password have options of their own. */
export function proxyUrl({ isSecure, host, port }: ProxyRoute): string {
  return `${isSecure ? "https" : "http"}://${hostAndPort(host, port)}`;
}
