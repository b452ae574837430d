/**
 * A TCP connection to one of a host's addresses: "happy eyeballs" (RFC 8305). Families take turns; the next
 * address is tried when one has failed or has not responded for a moment, and those before it go on. Node's
 * own autoSelectFamily gives an address up after that moment, which is too early on a long line.
 */
import { connect, isIPv6, type Socket } from "node:net";

/** How long an address has a head start, ms. Source: RFC 8305, 8: 250 ms. */
const HEAD_START_MS = 250;
/** Addresses tried. */
const MAX_ADDRESSES = 16;
/** Keep-alive probes find a peer that has gone while nothing is under way, ms. */
const KEEP_ALIVE_MS = 60_000;

/** No address could be reached; says why for the first of them. */
export class NotConnected extends Error {
  readonly address: string;

  constructor(address: string, cause: Error) {
    super(`no connection to ${address}`, { cause });
    this.address = address;
  }
}

/**
 * @param signal gives it up; its reason is thrown.
 * @throws NotConnected
 */
export function connectTcp(
  addresses: readonly string[],
  port: number,
  signal: AbortSignal,
): Promise<Socket> {
  const toTry = inTurns(addresses).slice(0, MAX_ADDRESSES);
  const open = new Set<Socket>();
  return new Promise((resolve, reject) => {
    let firstFailure: NotConnected | undefined;
    let timer: NodeJS.Timeout | undefined;
    const finish = (winner?: Socket) => {
      clearTimeout(timer);
      signal.removeEventListener("abort", abort);
      toTry.length = 0;
      for (const socket of open) if (socket !== winner) socket.destroy();
    };
    const abort = () => {
      finish();
      reject(signal.reason);
    };
    const next = () => {
      clearTimeout(timer);
      const host = toTry.shift();
      if (host === undefined) return;
      const socket = connect({
        host,
        port,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS,
      });
      open.add(socket);
      socket.once("connect", () => {
        finish(socket);
        resolve(socket);
      });
      // It stays, so that an error without a waiter ends the connection only.
      socket.on("error", (error) => {
        open.delete(socket);
        if (signal.aborted) return;
        firstFailure ??= new NotConnected(host, error);
        if (toTry.length > 0) {
          next();
        } else if (open.size === 0) {
          finish();
          reject(firstFailure);
        }
      });
      if (toTry.length > 0) timer = setTimeout(next, HEAD_START_MS);
    };
    signal.addEventListener("abort", abort, { once: true });
    next();
  });
}

/** The families in turns, beginning with that of the first address. */
function inTurns(addresses: readonly string[]): string[] {
  const isFirstIPv6 = addresses[0] !== undefined && isIPv6(addresses[0]);
  const same = addresses.filter((address) => isIPv6(address) === isFirstIPv6);
  const other = addresses.filter((address) => isIPv6(address) !== isFirstIPv6);
  return same
    .flatMap((address, index) => {
      const partner = other[index];
      return partner === undefined ? [address] : [address, partner];
    })
    .concat(other.slice(same.length));
}
