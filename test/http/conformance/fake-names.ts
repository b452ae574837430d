/** Host names of a test's own: Node's look-up is replaced for these, and serves all others as ever. */
import dns from "node:dns/promises";
import { syncBuiltinESMExports } from "node:module";
import { onTestFinished } from "vitest";

/** @param addresses by name; an error's code where it is not found; a promise where that takes time. */
export function fakeNames(
  addresses: Record<string, readonly string[] | string | Promise<never>>,
): void {
  const real = dns.lookup;
  const fake = async (host: string, options: object): Promise<unknown> => {
    const known = await addresses[host];
    if (known === undefined) return await real(host, options);
    if (typeof known === "string")
      throw Object.assign(new Error(`getaddrinfo ${known}`), { code: known });
    return known.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
  };
  dns.lookup = fake as typeof dns.lookup;
  syncBuiltinESMExports();
  onTestFinished(() => {
    dns.lookup = real;
    syncBuiltinESMExports();
  });
}
