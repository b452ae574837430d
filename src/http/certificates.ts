/**
 * Which certificate authorities are trusted. Users of the AWS CLI name a bundle by AWS_CA_BUNDLE or by the
 * profile's `ca_bundle`, in that order (botocore, configprovider.py), users of OpenSSL by SSL_CERT_FILE: each
 * of these replaces what the machine has. NODE_EXTRA_CA_CERTS adds to whatever is in use, as it does in Node.
 * Without any of them the machine's own bundle is used, and where there is none, Node's own.
 *
 * A file that the user names is read and checked here, once, so that a wrong path is one clear sentence and
 * not a failed handshake later. It must be a file, not a folder: botocore hands it to OpenSSL as a "cafile".
 */
import { X509Certificate } from "node:crypto";
import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { rootCertificates } from "node:tls";
import { Failure } from "../common/failure.js";
import type { Trust } from "./transport.js";

/** The bundles of Debian and Ubuntu and Alpine; Fedora, RHEL and Amazon Linux; SUSE; old RHEL; the BSDs' path. */
const SYSTEM_BUNDLES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/ssl/cert.pem",
];

/** Largest bundle that is read, bytes; a machine's own is about 220 KB. */
const MAX_BUNDLE_BYTES = 16 * 1024 * 1024;

/** Certificates of a bundle that are parsed here; a machine's whole bundle would take some 40 ms at each start. */
const MAX_CHECKED = 4;

const CERTIFICATE =
  /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*-----END (?:X509 |TRUSTED )?CERTIFICATE-----/g;

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * @param profileBundle `ca_bundle` of the profile in use.
 * @param systemBundles for tests.
 * @throws Failure EINVAL that names the variable and the file, where a file cannot be used.
 */
export function findTrust(
  env: Environment,
  profileBundle?: string,
  systemBundles: readonly string[] = SYSTEM_BUNDLES,
): Trust {
  const extraFile = env.NODE_EXTRA_CA_CERTS;
  const extra = extraFile ? [readBundle("NODE_EXTRA_CA_CERTS", extraFile)] : [];
  const file = namedBundle(env, profileBundle) ?? systemBundles.find(isReadableFile);
  if (file === undefined) extra.push(...rootCertificates);
  return {
    ...(file !== undefined && { file }),
    ...(extra.length > 0 && { extraPem: extra.join("\n") }),
  };
}

function namedBundle(env: Environment, profileBundle: string | undefined): string | undefined {
  const named: readonly [string, string | undefined][] = [
    ["AWS_CA_BUNDLE", env.AWS_CA_BUNDLE],
    ["ca_bundle of the AWS profile", profileBundle],
    ["SSL_CERT_FILE", env.SSL_CERT_FILE],
  ];
  for (const [name, file] of named) {
    if (!file) continue;
    readBundle(name, file);
    return file;
  }
  return undefined;
}

/** The PEM text of a file that the user named. */
function readBundle(name: string, file: string): string {
  const refuse = (why: string, cause?: unknown): never => {
    throw new Failure("EINVAL", `${name} names ${file}, ${why}.`, { cause });
  };
  let pem = "";
  try {
    const found = statSync(file);
    if (!found.isFile())
      refuse("which is not a file; it must be one file of certificates in PEM form");
    if (found.size > MAX_BUNDLE_BYTES)
      refuse("which is larger than 16 MiB; name a file of certificates");
    pem = readFileSync(file, "latin1");
  } catch (cause) {
    if (cause instanceof Failure) throw cause;
    const isMissing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    const why = isMissing ? "which does not exist" : "which cannot be read; check its permissions";
    refuse(why, cause);
  }
  const certificates = pem.match(CERTIFICATE) ?? [];
  if (certificates.length === 0) refuse("which holds no certificate in PEM form");
  certificates.slice(0, MAX_CHECKED).forEach((text, index) => {
    if (!isCertificate(text)) refuse(`whose certificate number ${index + 1} is damaged`);
  });
  return pem;
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0;
  } catch {
    return false;
  }
}

function isReadableFile(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    const found = statSync(path);
    return found.isFile() && found.size > 0;
  } catch {
    return false;
  }
}
