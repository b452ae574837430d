/** Certificates for TLS servers of a test's own, made by openssl: an authority, and leaves that it signs. */
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export interface Leaf {
  readonly key: Buffer;
  readonly cert: Buffer;
}

export interface LeafOptions {
  /** As in subjectAltName: `DNS:localhost,IP:127.0.0.1`. */
  readonly names?: string;
  /** Whether the certificate is still valid. */
  readonly isExpired?: boolean;
}

const NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

function openssl(args: readonly string[]): void {
  execFileSync("openssl", args, { stdio: ["ignore", "ignore", "pipe"] });
}

export class Authority {
  /** PEM file of the authority's own certificate. */
  readonly file: string;
  readonly #folder: string;
  readonly #key: string;
  #count = 0;

  constructor(folder: string, name = "authority") {
    this.#folder = folder;
    this.file = join(folder, `${name}.pem`);
    this.#key = join(folder, `${name}.key`);
    const extension = ["-addext", "basicConstraints=critical,CA:TRUE"];
    const subject = ["-days", "2", "-subj", `/CN=${name}`];
    const files = ["-keyout", this.#key, "-out", this.file];
    openssl(["req", "-x509", ...NEW_KEY, ...subject, ...extension, ...files]);
  }

  get pem(): string {
    return readFileSync(this.file, "latin1");
  }

  leaf({ names = "DNS:localhost,IP:127.0.0.1,IP:::1", isExpired = false }: LeafOptions = {}): Leaf {
    this.#count += 1;
    const path = join(this.#folder, `leaf-${process.pid}-${this.#count}-${Date.now()}`);
    const request = ["-keyout", `${path}.key`, "-out", `${path}.csr`];
    openssl(["req", "-new", ...NEW_KEY, "-subj", "/CN=leaf", ...request]);
    writeFileSync(`${path}.ext`, `subjectAltName=${names}\n`);
    const signer = ["-CA", this.file, "-CAkey", this.#key, "-CAcreateserial"];
    // openssl 3.0 knows no date for a certificate's end here: a negative number of days is in the past.
    const days = ["-days", isExpired ? "-1" : "2", "-extfile", `${path}.ext`];
    openssl(["x509", "-req", "-in", `${path}.csr`, ...signer, ...days, "-out", `${path}.pem`]);
    return { key: readFileSync(`${path}.key`), cert: readFileSync(`${path}.pem`) };
  }
}
