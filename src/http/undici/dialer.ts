/**
 * Makes connections that are ready for a request: the name is looked up, TCP connected, and where they are
 * needed TLS to the proxy, a tunnel through it (CONNECT), and TLS to the host, in this order. A `DialState`
 * says how far one got, for the stall limit and for the error.
 */
import { isIP, type Socket } from "node:net";
import { connect as connectTls, type TLSSocket } from "node:tls";
import type { Target } from "../check-request.js";
import { hostAndPort, type ProxyRoute } from "../proxies.js";
import { forgetHost, resolveHost } from "../resolver.js";
import { connectTcp } from "./connect-tcp.js";
import type { TrustContext } from "./trust-context.js";
import { openTunnel } from "./tunnel.js";

/** Where a connection leads. */
export interface Route {
  readonly target: Target;
  readonly proxy: ProxyRoute | undefined;
  /** Requests with the same key can share connections. */
  readonly key: string;
}

export type DialStage = "name" | "tcp" | "proxy-tls" | "tunnel" | "tls" | "ready";

/** How far a connection has got. */
export interface DialState {
  stage: DialStage;
  /** The socket that the kernel knows, whatever is on top of it. */
  tcp?: Socket;
  /** `address:port` of what it is connected to. */
  address?: string;
}

export function routeTo(target: Target, proxy: ProxyRoute | undefined): Route {
  const host = `${target.isSecure ? "https" : "http"}://${target.label}`;
  if (proxy === undefined) return { target, proxy, key: host };
  const { isSecure, label, user = "", password = "" } = proxy;
  const between = `${isSecure ? "https" : "http"} ${label} ${user} ${password}`;
  // A proxy's plain connections serve all hosts.
  return { target, proxy, key: target.isSecure ? `${host} ${between}` : between };
}

/**
 * @param state is kept up to date.
 * @param signal gives it up; its reason is thrown.
 * @throws HttpError, NotConnected, or what Node throws; errors.ts makes sentences of them.
 */
export async function dial(
  { target, proxy }: Route,
  trust: TrustContext,
  state: DialState,
  signal: AbortSignal,
): Promise<Socket> {
  signal.throwIfAborted();
  const first = proxy === undefined ? target : { hostname: proxy.host, port: proxy.port };
  const addresses = await unlessAborted(resolveHost(first.hostname), signal);
  state.stage = "tcp";
  signal.throwIfAborted();
  let socket: Socket;
  try {
    socket = await connectTcp(addresses, first.port, signal);
  } catch (error) {
    forgetHost(first.hostname);
    throw error;
  }
  state.tcp = socket;
  state.address = hostAndPort(socket.remoteAddress ?? "", first.port);
  try {
    signal.throwIfAborted();
    if (proxy?.isSecure) {
      state.stage = "proxy-tls";
      socket = await secure(socket, proxy.host, trust, signal);
    }
    if (target.isSecure) {
      if (proxy !== undefined) {
        state.stage = "tunnel";
        await openTunnel(socket, target.label, proxy, signal);
      }
      state.stage = "tls";
      signal.throwIfAborted();
      socket = await secure(socket, target.hostname, trust, signal);
    }
  } catch (error) {
    state.tcp.destroy();
    throw error;
  }
  state.stage = "ready";
  return socket;
}

function secure(
  socket: Socket,
  host: string,
  trust: TrustContext,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const session = trust.session(host);
  const tls = connectTls({
    socket,
    host,
    // An address is no server name (RFC 6066), but its certificate is checked all the same.
    ...(isIP(host) === 0 && { servername: host }),
    secureContext: trust.get(),
    ALPNProtocols: ["http/1.1"],
    // Whatever NODE_TLS_REJECT_UNAUTHORIZED says.
    rejectUnauthorized: true,
    ...(session !== undefined && { session }),
  });
  tls.on("session", (kept: Buffer) => trust.keepSession(host, kept));
  return new Promise((resolve, reject) => {
    let lastError: Error | undefined;
    const abort = () => end(() => reject(signal.reason));
    const end = (settle: () => void) => {
      signal.removeEventListener("abort", abort);
      tls.off("close", closed);
      settle();
    };
    const closed = () => end(() => reject(lastError ?? new HandshakeEnded()));
    tls.on("error", (error) => {
      lastError ??= error;
    });
    tls.once("close", closed);
    tls.once("secureConnect", () => end(() => resolve(tls)));
    signal.addEventListener("abort", abort, { once: true });
  });
}

/** The peer closed the connection before TLS was ready. */
export class HandshakeEnded extends Error {}

function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
