/** The authorities are read once, and again when their file has changed. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { HttpError } from "../../../src/http/http-error.js";
import { TrustContext } from "../../../src/http/undici/trust-context.js";
import { Authority } from "../../support/certificates.js";

const folder = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("a file that changes is read again, and sessions made before are forgotten", () => {
  const [first, second] = [new Authority(folder, "first"), new Authority(folder, "second")];
  const file = join(folder, "bundle.pem");
  writeFileSync(file, first.pem);
  const trust = new TrustContext({ file });
  const context = trust.get();
  expect(trust.get()).toBe(context);
  trust.keepSession("host", Buffer.from("session"));
  writeFileSync(file, `${first.pem}\n${second.pem}`);
  const changed = trust.get();
  expect(changed).not.toBe(context);
  expect(trust.session("host")).toBeUndefined();
  rmSync(file);
  expect(trust.get()).toBe(changed);
});

test("sessions are kept for a bounded number of hosts, the latest", () => {
  const trust = new TrustContext({});
  for (let i = 0; i < 100; i += 1) trust.keepSession(`host-${i}`, Buffer.from(`${i}`));
  expect(trust.session("host-99")?.toString()).toBe("99");
  expect(trust.session("host-0")).toBeUndefined();
});

test("a file that was never there is an error that names it", () => {
  const file = join(folder, "missing.pem");
  const get = () => new TrustContext({ file }).get();
  expect(get).toThrow(HttpError);
  expect(get).toThrow(file);
});
