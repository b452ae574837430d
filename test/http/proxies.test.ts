/** Which proxy a URL goes through, for every way that people write the variables. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HttpError } from "../../src/http/http-error.js";
import { proxyFor, proxySettings } from "../../src/http/proxies.js";

const PROXY = "http://proxy.example:3128";

function goesThrough(url: string, noProxy?: string): boolean {
  const settings = {
    httpProxy: PROXY,
    httpsProxy: PROXY,
    ...(noProxy !== undefined && { noProxy }),
  };
  return proxyFor(url, settings) !== undefined;
}

function refusal(value: string): HttpError {
  try {
    proxyFor("https://ebs.example", { httpsProxy: value });
  } catch (error) {
    return error as HttpError;
  }
  throw new Error("it was not refused");
}

describe("the environment", () => {
  test.each([
    [{}, {}],
    [
      { HTTPS_PROXY: "a", HTTP_PROXY: "b", NO_PROXY: "c" },
      { httpsProxy: "a", httpProxy: "b", noProxy: "c" },
    ],
    [
      { https_proxy: "a", http_proxy: "b", no_proxy: "c" },
      { httpsProxy: "a", httpProxy: "b", noProxy: "c" },
    ],
    [{ HTTPS_PROXY: "upper", https_proxy: "lower" }, { httpsProxy: "lower" }],
    [{ HTTPS_PROXY: "upper", https_proxy: "" }, {}],
    [{ HTTPS_PROXY: "", NO_PROXY: "  " }, {}],
    [{ ALL_PROXY: "a", all_proxy: "b" }, {}],
  ])("%j gives %j", (env, settings) => {
    expect(proxySettings(env)).toEqual(settings);
  });
});

describe("the proxy's URL", () => {
  test.each([
    ["http://proxy.example:3128", { isSecure: false, host: "proxy.example", port: 3128 }],
    ["proxy.example:3128", { isSecure: false, host: "proxy.example", port: 3128 }],
    ["//proxy.example", { isSecure: false, host: "proxy.example", port: 80 }],
    ["HTTPS://Proxy.Example/", { isSecure: true, host: "proxy.example", port: 443 }],
    ["http://10.1.2.3:21", { isSecure: false, host: "10.1.2.3", port: 21 }],
    ["http://[2001:DB8::1]:8080", { isSecure: false, host: "2001:db8::1", port: 8080 }],
    ["http://me@proxy.example", { host: "proxy.example", user: "me" }],
    ["http://me:a%20%40b%25@proxy.example:1", { user: "me", password: "a @b%", port: 1 }],
    [
      "me:p@ss/#1?@proxy.example:99",
      { user: "me", password: "p@ss/#1?", host: "proxy.example", port: 99 },
    ],
    ["http://me:100%@proxy.example", { user: "me", password: "100%" }],
    ["http://me:%ff%zz@proxy.example", { user: "me", password: "%ff%zz" }],
    [
      "http://user:12/ss@proxy.example",
      { user: "user", password: "12/ss", host: "proxy.example", port: 80 },
    ],
    ["http://:secret@proxy.example", { user: "", password: "secret" }],
  ])("%s", (value, expected) => {
    expect(proxyFor("https://ebs.example", { httpsProxy: value })).toMatchObject(expected);
  });

  test("has a label without user and password, with brackets around IPv6", () => {
    const label = (value: string) => proxyFor("http://x.example", { httpProxy: value })?.label;
    expect(label("http://me:secret@proxy.example:3128/x")).toBe("proxy.example:3128");
    expect(label("https://me:secret@[::1]")).toBe("[::1]:443");
  });

  test.each([
    "socks5://me:secret@proxy.example:1080",
    "http://me:secret@",
    "http://me:secret@proxy.example:secret",
    "http://me:secret@proxy.example:99999",
    "http://me:secret@proxy.example:0",
    "http://me:secret@pro xy.example",
    "http://me:secret@[::zz]:80",
    "http://",
    "me:secret",
  ])("%s is refused in one sentence that names the variable and nothing else", (value) => {
    const error = refusal(value);
    expect(error).toBeInstanceOf(HttpError);
    expect(error.kind).toBe("invalid-request");
    expect(error.message).toContain("https_proxy or HTTPS_PROXY");
    expect(error.message).not.toMatch(/secret|\bme\b/);
  });

  test("no part of a password is ever in a label or a refusal", () => {
    const word = fc.stringMatching(/^QZ[ -~]{0,12}$/);
    fc.assert(
      fc.property(
        fc.constantFrom("http://", "https://", "", "//", "socks5://"),
        word,
        word,
        (scheme, user, password) => {
          const value = `${scheme}${user}:${password}@proxy.example:3128`;
          try {
            const route = proxyFor("https://ebs.example", { httpsProxy: value });
            expect(route?.label).toBe("proxy.example:3128");
          } catch (error) {
            expect((error as HttpError).message).not.toContain("QZ");
          }
        },
      ),
    );
  });

  test("is not looked at where it is not used", () => {
    expect(proxyFor("http://ebs.example", { httpsProxy: "socks5://x" })).toBeUndefined();
    expect(proxyFor("https://localhost", { httpsProxy: "socks5://x" })).toBeUndefined();
    expect(
      proxyFor("https://a.example", { httpsProxy: "socks5://x", noProxy: "*" }),
    ).toBeUndefined();
  });
});

describe("NO_PROXY", () => {
  test.each([
    ["https://ebs.example.com", "example.com", true],
    ["https://ebs.example.com", ".example.com", true],
    ["https://example.com", ".example.com", true],
    ["https://ebs.example.com", "*.example.com", true],
    ["https://ebs.example.com", "EBS.Example.COM", true],
    ["https://EBS.example.com.", "example.com.", true],
    ["https://ebs.example.com", "other.org, example.com", true],
    ["https://ebs.example.com", "other.org example.com", true],
    ["https://ebs.example.com", ",,example.com,", true],
    ["https://ebs.example.com", "a.org,*", true],
    ["https://badexample.com", "example.com", false],
    ["https://example.com.evil.org", "example.com", false],
    ["https://ebs.example.com", ".", false],
    ["https://ebs.example.com", "com.", true],
    ["https://ebs.example.com", "example.com:443", true],
    ["https://ebs.example.com:8443", "example.com:8443", true],
    ["https://ebs.example.com", "example.com:8443", false],
    ["http://ebs.example.com", "example.com:80", true],
    ["http://ebs.example.com:8080", "example.com", true],
    ["http://10.1.2.3", "10.1.2.3", true],
    ["http://10.1.2.3", "10.1.2.3:80", true],
    ["http://10.1.2.3", "10.1.2.3:81", false],
    ["http://10.1.2.3", "10.1.2.33", false],
    ["http://10.1.2.3", "2.3", false],
    ["http://10.1.2.3", "10.0.0.0/8", true],
    ["http://11.1.2.3", "10.0.0.0/8", false],
    ["http://11.1.2.3", "0.0.0.0/0", true],
    ["http://10.1.2.3", "10.0.0.0/33", false],
    ["http://0x0a010203", "10.1.2.3", true],
    ["http://x.10.1.2.3.example", "10.1.2.3", false],
    ["http://[2001:db8::1]", "2001:db8::1", true],
    ["http://[2001:db8::1]", "[2001:DB8:0::1]", true],
    ["http://[2001:db8::1]:81", "[2001:db8::1]:81", true],
    ["http://[2001:db8::1]:80", "[2001:db8::1]:81", false],
    ["http://[2001:db8:1::1]", "2001:db8::/32", true],
    ["http://[2001:db9::1]", "2001:db8::/32", false],
    ["http://[2001:db8::1]", "0.0.0.0/0", false],
    ["http://ebs.example.com", "0.0.0.0/0", false],
  ])("%s with %s: reached directly is %s", (url, noProxy, isDirect) => {
    expect(goesThrough(url, noProxy)).toBe(!isDirect);
  });

  test.each([
    "http://localhost:8080",
    "https://LOCALHOST.",
    "http://api.localhost",
    "http://127.0.0.1",
    "http://127.255.0.9:99",
    "http://127.1",
    "http://[::1]:8080",
    "http://[::ffff:127.0.0.1]",
    "http://169.254.169.254/latest",
    "http://169.254.170.2/creds",
    "http://[fd00:ec2::254]/latest",
    "http://[fd00:ec2::23]/v1",
    "http://[fe80::1]",
    "http://[febf::1]",
  ])("%s is always reached directly", (url) => {
    expect(goesThrough(url)).toBe(false);
  });

  test.each([
    "http://128.0.0.1",
    "http://169.253.1.1",
    "http://[fec0::1]",
    "http://localhost.example",
    "http://[fd00:ec3::254]",
  ])("%s is not", (url) => {
    expect(goesThrough(url)).toBe(true);
  });

  const label = fc.stringMatching(/^[a-z][a-z0-9-]{0,6}[a-z0-9]$/);
  const name = fc
    .array(label, { minLength: 1, maxLength: 4 })
    .map((labels) => `${labels.join(".")}.example`);

  test("a name stands for itself and all below it, and for no other", () => {
    fc.assert(
      fc.property(name, name, fc.nat(3), fc.boolean(), (host, entry, dots, isUpper) => {
        const written = `${dots > 0 ? "." : ""}${isUpper ? entry.toUpperCase() : entry}`;
        const labels = host.split(".");
        const suffixes = labels.map((_, at) => labels.slice(at).join("."));
        expect(goesThrough(`https://${host}`, written)).toBe(!suffixes.includes(entry));
        expect(goesThrough(`https://sub.${entry}:8443`, written)).toBe(false);
        expect(goesThrough(`https://sub${entry}`, `,${written}:8443`)).toBe(true);
      }),
    );
  });

  test("a network holds exactly the addresses with its leading bits", () => {
    const address = fc.integer({ min: 0, max: 0xffffffff });
    const text = (value: number) =>
      [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
    fc.assert(
      fc.property(
        address,
        address,
        fc.integer({ min: 0, max: 32 }),
        fc.boolean(),
        (base, other, bits, isNear) => {
          const mask = bits === 0 ? 0 : (-1 << (32 - bits)) >>> 0;
          const host = isNear ? ((base & mask) | (other & ~mask)) >>> 0 : other;
          const isLocal = host >>> 24 === 127 || host >>> 16 === 0xa9fe;
          const isInside = (host & mask) >>> 0 === (base & mask) >>> 0;
          expect(goesThrough(`http://${text(host)}`, `${text(base)}/${bits}`)).toBe(
            !isInside && !isLocal,
          );
        },
      ),
    );
  });

  test("any list at all is a list, and one entry more never sends a host back to the proxy", () => {
    fc.assert(
      fc.property(fc.string(), name, (noise, host) => {
        expect(goesThrough(`https://${host}`, `${noise},${host}`)).toBe(false);
        if (!goesThrough(`https://${host}`, noise)) {
          expect(goesThrough(`https://${host}`, `${noise},other.example.org`)).toBe(false);
        }
      }),
    );
  });
});
