/** Which authorities are trusted, by the variables that name them; and files that cannot be used. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Failure } from "../../src/common/failure.js";
import { findTrust } from "../../src/http/certificates.js";
import { Authority } from "../support/certificates.js";

const folder = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
let first: Authority;
let second: Authority;

beforeAll(() => {
  first = new Authority(folder, "first");
  second = new Authority(folder, "second");
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

describe("the bundle in use", () => {
  test("is the named one: AWS_CA_BUNDLE before the profile's before SSL_CERT_FILE", () => {
    const third = file("third.pem", `comment\n${first.pem}\n${second.pem}`);
    const system = [second.file];
    const all = { AWS_CA_BUNDLE: first.file, SSL_CERT_FILE: third };
    expect(findTrust(all, second.file, system)).toEqual({ file: first.file });
    expect(findTrust({ SSL_CERT_FILE: third }, first.file, system)).toEqual({ file: first.file });
    expect(findTrust({ SSL_CERT_FILE: third }, undefined, system)).toEqual({ file: third });
    expect(findTrust({ AWS_CA_BUNDLE: "", SSL_CERT_FILE: "" }, "", system)).toEqual({
      file: second.file,
    });
  });

  test("is the machine's first one that is there, else Node's roots", () => {
    const empty = file("empty.pem", "");
    expect(findTrust({}, undefined, ["/nowhere/a.pem", folder, empty, first.file])).toEqual({
      file: first.file,
    });
    const { file: none, extraPem } = findTrust({}, undefined, ["/nowhere/a.pem"]);
    expect(none).toBeUndefined();
    expect(extraPem).toContain(rootCertificates[0]);
    expect(findTrust({}).file ?? "").toMatch(/^(?:\/etc\/.*)?$/);
  });

  test("has NODE_EXTRA_CA_CERTS beside it, whichever it is", () => {
    const env = { NODE_EXTRA_CA_CERTS: second.file };
    const named = findTrust({ ...env, AWS_CA_BUNDLE: first.file });
    expect(named).toEqual({ file: first.file, extraPem: second.pem });
    const none = findTrust(env, undefined, []);
    expect(none.extraPem).toContain(second.pem);
    expect(none.extraPem).toContain(rootCertificates[0]);
  });
});

describe.each([
  ["AWS_CA_BUNDLE", (path: string) => findTrust({ AWS_CA_BUNDLE: path })],
  ["ca_bundle of the AWS profile", (path: string) => findTrust({}, path)],
  ["SSL_CERT_FILE", (path: string) => findTrust({ SSL_CERT_FILE: path })],
  ["NODE_EXTRA_CA_CERTS", (path: string) => findTrust({ NODE_EXTRA_CA_CERTS: path })],
])("%s is refused in a sentence", (name, find) => {
  const damaged = () =>
    `${first.pem}\n${second.pem.replace(/(?<=CERTIFICATE-----\n)[\s\S]{40}/, "A".repeat(40))}`;
  test.each([
    ["a missing file", () => join(folder, "missing.pem"), /does not exist/],
    ["a folder", () => folder, /not a file/],
    ["a device", () => "/dev/zero", /not a file/],
    ["an empty file", () => file("empty.pem", ""), /holds no certificate/],
    ["a key", () => join(folder, "first.key"), /holds no certificate/],
    ["a damaged certificate", () => file("damaged.pem", damaged()), /number 2 is damaged/],
    ["a path below a file", () => `${first.file}/x`, /cannot be read/],
  ])("%s", (_what, path, words) => {
    const named = path();
    const refused = expect.objectContaining({
      errno: "EINVAL",
      message: expect.stringMatching(words),
    });
    expect(() => find(named)).toThrow(refused);
    expect(() => find(named)).toThrow(Failure);
    expect(() => find(named)).toThrow(`${name} names ${named},`);
  });
});
