/**
 * Host names to addresses. The system's own look-up (getaddrinfo) decides, with /etc/hosts and the order of
 * RFC 6724, but it knows no cache and takes one of libuv's four threads each time. So a result is kept for a
 * minute, and requests that need the same name at the same time share one look-up. A failure is not kept.
 *
 * The cache belongs to the thread, not to a transport: it holds nothing secret.
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { HttpError } from "./http-error.js";

/** How long a result is used, ms. */
const MAX_AGE_MS = 60_000;
/** Names kept. */
const MAX_NAMES = 64;

interface Found {
  readonly addresses: Promise<readonly string[]>;
  /** The same, once they are found. */
  known: readonly string[] | undefined;
  /** When it was found, by performance.now(); undefined while it is being looked up. */
  foundAt: number | undefined;
}

const names = new Map<string, Found>();

/**
 * All addresses of a host, IPv4 and IPv6, at least one, in the order to try them.
 * @param host a name, or an address without brackets, which is returned as it is.
 * @throws HttpError "name", without `host`: the transport knows the port.
 */
export function resolveHost(host: string): Promise<readonly string[]> {
  if (isIP(host) !== 0) return Promise.resolve([host]);
  const known = names.get(host);
  if (known !== undefined) {
    if (known.foundAt === undefined || performance.now() - known.foundAt < MAX_AGE_MS) {
      return known.addresses;
    }
    names.delete(host);
  }
  const found: Found = { addresses: look(host), known: undefined, foundAt: undefined };
  names.set(host, found);
  found.addresses.then(
    (addresses) => {
      found.known = addresses;
      found.foundAt = performance.now();
    },
    () => {
      if (names.get(host) === found) names.delete(host);
    },
  );
  // Map keeps the order of insertion: the first is the oldest.
  if (names.size > MAX_NAMES) names.delete(names.keys().next().value as string);
  return found.addresses;
}

/** What resolveHost would give at once; undefined where it has to look. */
export function knownAddresses(host: string): readonly string[] | undefined {
  const found = names.get(host);
  if (found?.foundAt === undefined || performance.now() - found.foundAt >= MAX_AGE_MS) {
    return undefined;
  }
  return found.known;
}

/** To be called where none of a host's addresses could be reached: the next request looks it up again. */
export function forgetHost(host: string): void {
  if (names.get(host)?.foundAt !== undefined) names.delete(host);
}

async function look(host: string): Promise<readonly string[]> {
  try {
    const found = await lookup(host, { all: true, verbatim: true });
    if (found.length > 0) return found.map(({ address }) => address);
  } catch (cause) {
    throw notFound(host, WORDS[(cause as NodeJS.ErrnoException).code ?? ""], cause);
  }
  throw notFound(host, WORDS.ENODATA);
}

/** Words for getaddrinfo's errors. Source: getaddrinfo(3), and Node's names for them. */
const WORDS: Readonly<Record<string, string>> = {
  ENOTFOUND: "there is no such name",
  ENODATA: "the name has no address",
  EAI_AGAIN: "the name servers do not respond",
  EAI_FAIL: "the name servers failed",
  EAI_MEMORY: "there is no memory left",
};

function notFound(host: string, why: string | undefined, cause?: unknown): HttpError {
  const message = `cannot look up the address of ${host}: ${why ?? "the system's look-up failed"}`;
  return new HttpError({ kind: "name", message }, { cause });
}
