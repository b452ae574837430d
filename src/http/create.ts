/**
 * Chooses the transport: libcurl where the machine has one that can be used, else undici. The variable
 * EBSMOUNT_HTTP_TRANSPORT (`libcurl` or `undici`) chooses for tests and in need.
 */
import { Failure } from "../common/failure.js";
import { findTrust } from "./certificates.js";
import { CurlTransport, describeCurl } from "./curl/curl-transport.js";
import { type CurlLibrary, loadCurl } from "./curl/library.js";
import { proxySettings } from "./proxies.js";
import type { HttpTransport, TransportSettings } from "./transport.js";
import { describeUndici } from "./undici/client.js";
import { UndiciTransport } from "./undici/undici-transport.js";

type Environment = Readonly<Record<string, string | undefined>>;

const VARIABLE = "EBSMOUNT_HTTP_TRANSPORT";

/**
 * @param options.caBundle as the profile names it. @param options.maxConnections as in TransportSettings.
 * @throws Failure EINVAL if a file of certificates that is named cannot be used
 */
export function transportSettings(
  env: Environment,
  options: { readonly maxConnections: number; readonly caBundle?: string },
): TransportSettings {
  return {
    maxConnections: options.maxConnections,
    trust: findTrust(env, options.caBundle),
    proxies: proxySettings(env),
  };
}

/**
 * Makes no request.
 * @param options.ownsThread the calling thread does nothing but send requests and take messages.
 * @throws Failure EINVAL if the variable asks for what is not there
 */
export function createTransport(
  settings: TransportSettings,
  options: { readonly ownsThread?: boolean } = {},
): HttpTransport {
  const curl = chooseCurl();
  if (curl === undefined) return new UndiciTransport(settings);
  return new CurlTransport(curl, settings, options.ownsThread ?? false);
}

/** What createTransport would make: for `status`. */
export function transportDescription(): string {
  const curl = chooseCurl();
  return curl === undefined ? describeUndici() : describeCurl(curl.version);
}

/** undefined stands for undici. */
function chooseCurl(): CurlLibrary | undefined {
  const wanted = process.env[VARIABLE] || undefined;
  if (wanted === "undici") return undefined;
  if (wanted !== undefined && wanted !== "libcurl") {
    throw new Failure(
      "EINVAL",
      `${VARIABLE} is ${JSON.stringify(wanted.slice(0, 40))}; it must be libcurl or undici.`,
    );
  }
  const curl = loadCurl();
  if (typeof curl !== "string") return curl;
  if (wanted === undefined) return undefined;
  throw new Failure(
    "EINVAL",
    `${VARIABLE} asks for libcurl, but ${curl}; install libcurl 4 or unset the variable.`,
  );
}
