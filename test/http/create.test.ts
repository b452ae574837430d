/** Which transport is made, and from which settings. */
import { afterEach, expect, test, vi } from "vitest";
import { createTransport, transportDescription, transportSettings } from "../../src/http/create.js";

const SETTINGS = { maxConnections: 4, trust: {}, proxies: {} };

afterEach(() => vi.unstubAllEnvs());

test.each(["undici", "libcurl"])("EBSMOUNT_HTTP_TRANSPORT=%s chooses it", async (name) => {
  vi.stubEnv("EBSMOUNT_HTTP_TRANSPORT", name);
  const transport = createTransport(SETTINGS);
  expect(transport.description).toMatch(new RegExp(`^${name} \\d+\\.\\d+`));
  expect(transportDescription()).toBe(transport.description);
  await transport.close();
});

test("an empty one chooses as none does", async () => {
  vi.stubEnv("EBSMOUNT_HTTP_TRANSPORT", "");
  const transport = createTransport(SETTINGS);
  expect(transport.description).toMatch(/^(?:libcurl|undici) /);
  await transport.close();
});

test("any other is refused in a sentence", () => {
  vi.stubEnv("EBSMOUNT_HTTP_TRANSPORT", "wget");
  const refused = expect.objectContaining({
    errno: "EINVAL",
    message: expect.stringMatching(/wget.*libcurl or undici\.$/),
  });
  expect(() => createTransport(SETTINGS)).toThrow(refused);
  expect(() => transportDescription()).toThrow(refused);
});

test("settings come from the environment and the profile", () => {
  const env = { https_proxy: "proxy:3128", NO_PROXY: "x.example" };
  const { maxConnections, proxies, trust } = transportSettings(env, { maxConnections: 7 });
  expect(maxConnections).toBe(7);
  expect(proxies).toEqual({ httpsProxy: "proxy:3128", noProxy: "x.example" });
  expect(trust.file ?? trust.extraPem).toBeDefined();
  const options = { maxConnections: 7, caBundle: "/nowhere/bundle.pem" };
  expect(() => transportSettings({}, options)).toThrow("/nowhere/bundle.pem");
});
