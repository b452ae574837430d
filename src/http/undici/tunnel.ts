/**
 * A tunnel through a proxy: CONNECT, by undici's client, so that its parser reads the proxy's response.
 * Whatever the proxy says other than 2xx is an HttpError "proxy".
 */
import type { Socket } from "node:net";
import { HttpError } from "../http-error.js";
import type { ProxyRoute } from "../proxies.js";
import { clientOver } from "./client.js";
import { HeadGate } from "./head-gate.js";

/**
 * @param label the host to reach, `host:port`.
 * @param signal gives it up; its reason is thrown.
 * @throws HttpError "proxy", or what ended the connection. The caller destroys the socket then.
 */
export async function openTunnel(
  socket: Socket,
  label: string,
  proxy: ProxyRoute,
  signal: AbortSignal,
): Promise<void> {
  const refusal = (why: string) => {
    const message = `the proxy ${proxy.label} does not connect to ${label}: ${why}`;
    return new HttpError({ kind: "proxy", message, host: label, proxy: proxy.label });
  };
  let abort = () => {};
  const status = await new Promise<number>((resolve, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    new HeadGate(socket, () => reject(refusal("what it sends is not HTTP/1.1"))).begin();
    const client = clientOver(socket);
    const headers = { host: label, ...proxyAuthorization(proxy) };
    client.dispatch(
      { method: "CONNECT", path: label, headers },
      {
        onRequestStart() {},
        onRequestUpgrade: (_controller, status) => resolve(status),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  }).finally(() => signal.removeEventListener("abort", abort));
  if (status === 407) throw refusal(MISSING_USER);
  if (status < 200 || status > 299) throw refusal(`it responds with status ${status}`);
}

/** For a 407, which only proxies send. */
export const MISSING_USER =
  "it wants another user and password (status 407); put them into the proxy's URL, http://user:password@host:port";

export function proxyAuthorization({ user, password }: ProxyRoute): Record<string, string> {
  if (user === undefined) return {};
  const text = Buffer.from(`${user}:${password ?? ""}`, "utf8").toString("base64");
  return { "proxy-authorization": `Basic ${text}` };
}
