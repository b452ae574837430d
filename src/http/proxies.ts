/**
 * Which proxy a request goes through. The environment decides, by the rules that the AWS CLI's users know:
 * those of botocore, which takes them from Python's urllib (getproxies_environment, proxy_bypass_environment)
 * and its default ports from urllib3. Both transports are given the result; neither reads the environment.
 *
 * - HTTPS_PROXY serves https: URLs, HTTP_PROXY http: ones. A variable in lower case wins, also an empty one,
 *   which means no proxy. ALL_PROXY is not read.
 * - NO_PROXY is a list of host names, which also stand for all names that end with `.name`; of addresses; of
 *   networks such as 10.0.0.0/8; or `*`. An entry may end with a port. urllib knows names only; requests and
 *   curl (from 7.86) know networks too.
 * - This machine and link-local addresses are always reached directly: a proxy would ask its own machine for
 *   them, and the credentials of an instance, a container or a pod are served there. Source: the SDKs'
 *   "container credential provider" and "IMDS" settings, Amazon EKS "Pod Identity" (fd00:ec2::23).
 */
import { BlockList, isIP } from "node:net";
import { HttpError } from "./http-error.js";
import type { ProxySettings } from "./transport.js";

/** How to reach a proxy. */
export interface ProxyRoute {
  /** TLS to the proxy itself. */
  readonly isSecure: boolean;
  /** A name, or an address without brackets. */
  readonly host: string;
  readonly port: number;
  /** Decoded; never to be shown. */
  readonly user?: string;
  readonly password?: string;
  /** `host:port`, for messages. */
  readonly label: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** What the environment says; nothing is checked before a request needs it. */
export function proxySettings(env: Environment): ProxySettings {
  const httpProxy = variable(env, "http_proxy");
  const httpsProxy = variable(env, "https_proxy");
  const noProxy = variable(env, "no_proxy");
  return {
    ...(httpProxy !== undefined && { httpProxy }),
    ...(httpsProxy !== undefined && { httpsProxy }),
    ...(noProxy !== undefined && { noProxy }),
  };
}

function variable(env: Environment, name: string): string | undefined {
  return (env[name] ?? env[name.toUpperCase()])?.trim() || undefined;
}

/**
 * The proxy for a URL; undefined where it is reached directly.
 * @param url absolute, http: or https:.
 * @throws HttpError "invalid-request" if the proxy's own URL cannot be used; it names the variable only.
 */
export function proxyFor(url: string | URL, settings: ProxySettings): ProxyRoute | undefined {
  const { httpProxy, httpsProxy } = settings;
  if (httpProxy === undefined && httpsProxy === undefined) return undefined;
  const { protocol, hostname, port } = new URL(url);
  const isSecure = protocol === "https:";
  const value = isSecure ? settings.httpsProxy : settings.httpProxy;
  if (value === undefined) return undefined;
  const host = bareHost(hostname);
  if (isLocal(host)) return undefined;
  const destination = { host, port: port === "" ? (isSecure ? 443 : 80) : Number(port) };
  if (settings.noProxy !== undefined && bypasses(destination, settings.noProxy)) return undefined;
  return parseProxy(value, isSecure ? "https_proxy or HTTPS_PROXY" : "http_proxy or HTTP_PROXY");
}

/** `host:port`, with brackets around an IPv6 address. */
export function hostAndPort(host: string, port: number): string {
  return `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
}

/** In lower case, without the brackets of an IPv6 address and the dot at a full name's end. */
function bareHost(host: string): string {
  return host
    .toLowerCase()
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "");
}

const LOCAL_NETWORKS = new BlockList();
LOCAL_NETWORKS.addSubnet("127.0.0.0", 8, "ipv4");
LOCAL_NETWORKS.addSubnet("169.254.0.0", 16, "ipv4");
LOCAL_NETWORKS.addAddress("::1", "ipv6");
LOCAL_NETWORKS.addSubnet("fe80::", 10, "ipv6");
/** Amazon's own services inside a VPC: instance metadata ::254, EKS Pod Identity ::23. */
LOCAL_NETWORKS.addSubnet("fd00:ec2::", 32, "ipv6");

function isLocal(host: string): boolean {
  if (host === "localhost" || host.endsWith(".localhost")) return true;
  return isIP(host) !== 0 && LOCAL_NETWORKS.check(host, family(host));
}

function family(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}

interface Destination {
  readonly host: string;
  readonly port: number;
}

function bypasses(destination: Destination, noProxy: string): boolean {
  return noProxy.split(/[\s,]+/).some((entry) => entry !== "" && matches(destination, entry));
}

function matches({ host, port }: Destination, entry: string): boolean {
  if (entry === "*") return true;
  const network = /^\[?([0-9a-f.:]+?)\]?\/(\d{1,3})$/i.exec(entry);
  if (network !== null) return isIn(host, network[1] as string, Number(network[2]));
  const { name, only } = splitPort(entry);
  if (only !== undefined && only !== port) return false;
  if (isIP(name) !== 0) {
    return isIP(host) !== 0 && isIn(host, name, family(name) === "ipv6" ? 128 : 32);
  }
  const suffix = name.replace(/^\*?\.+/, "");
  if (suffix === "" || isIP(host) !== 0) return false;
  return host === suffix || host.endsWith(`.${suffix}`);
}

function isIn(host: string, address: string, bits: number): boolean {
  const isPossible = isIP(host) !== 0 && isIP(address) !== 0;
  if (!isPossible || bits > (family(address) === "ipv6" ? 128 : 32)) return false;
  const network = new BlockList();
  network.addSubnet(address, bits, family(address));
  return network.check(host, family(host));
}

/** An entry's name or address, and the port it is limited to. The colons of a bare IPv6 address are its own. */
function splitPort(entry: string): { name: string; only: number | undefined } {
  if (isIP(entry) === 6) return { name: entry, only: undefined };
  const [, name, port] = /^(.*?)(?::(\d{1,5}))?$/.exec(entry) as unknown as [
    string,
    string,
    string,
  ];
  return { name: bareHost(name), only: port === undefined ? undefined : Number(port) };
}

/**
 * Reads a proxy's URL. Whatever stands before the last "@" is user and password, even where a "/" or "#" in
 * it is not escaped, so that no part of a password can be taken for a host and be shown.
 */
function parseProxy(value: string, variables: string): ProxyRoute {
  const [prefix = "", scheme = "http"] = /^(?:([a-z][a-z0-9+.-]*):)?\/\//i.exec(value) ?? [];
  const protocol = scheme.toLowerCase();
  if (protocol !== "http" && protocol !== "https") {
    throw unusable(`the proxy in ${variables} is neither an http:// nor an https:// URL`);
  }
  const isSecure = protocol === "https";
  const rest = value.slice(prefix.length);
  const at = rest.lastIndexOf("@");
  const authority = rest.slice(at + 1).replace(/[/?#].*$/s, "");
  const [, name = "", digits] = /^(\[[^\]]*\]|[^:\s\\]+)(?::(\d{1,5}))?$/.exec(authority) ?? [];
  const port = digits === undefined ? (isSecure ? 443 : 80) : Number(digits);
  if (!URL.canParse(`http://${name}`) || port < 1 || port > 65_535) {
    throw unusable(`the proxy in ${variables} is not a URL such as http://proxy.example.com:3128`);
  }
  const host = bareHost(new URL(`http://${name}`).hostname);
  const label = hostAndPort(host, port);
  return { isSecure, host, port, label, ...(at > 0 && readUser(rest.slice(0, at))) };
}

function readUser(userInfo: string): { user: string; password?: string } {
  const colon = userInfo.indexOf(":");
  if (colon < 0) return { user: decode(userInfo) };
  return { user: decode(userInfo.slice(0, colon)), password: decode(userInfo.slice(colon + 1)) };
}

/** As Python's unquote: what is not properly escaped stays as it is. */
function decode(text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (escaped) => {
    try {
      return decodeURIComponent(escaped);
    } catch {
      return escaped;
    }
  });
}

function unusable(what: string): HttpError {
  return new HttpError({ kind: "invalid-request", message: what });
}
