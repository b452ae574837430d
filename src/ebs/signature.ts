/**
 * Signs block requests with signature version 4. The SDK's own signer costs more processor time than
 * receiving a block; and but for the index, the token and the checksum each request is like the one before.
 * What the SDK found (endpoint, region, credentials, the clock's error) is in the context, plain data that
 * goes to worker threads. A test compares every signature with the SDK's. Source: AWS General Reference,
 * "Create a signed AWS API request".
 */
import { createHash, createHmac } from "node:crypto";

/** All that signing needs; holds secrets, never logged. */
export interface SigningContext {
  /** `https://host` or `https://host:port`. */
  readonly origin: string;
  /** Path before `/snapshots`, as sent; mostly empty. */
  readonly basePath: string;
  /** Sent with each request; `host` among them. Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly region: string;
  readonly service: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string | undefined;
  /** What to add to this machine's clock, ms. */
  readonly clockOffsetMs: number;
}

export class Signer {
  readonly context: SigningContext;
  #day = "";
  #key: Buffer = Buffer.alloc(0);

  constructor(context: SigningContext) {
    this.context = context;
  }

  /**
   * @param path as sent, with the base path. @param query as sent, without the question mark; its names ascend.
   * @param headers those of this request alone. Signed are `host` and every `x-amz-…`.
   * @param payloadHash SHA-256 of the body, in hexadecimal.
   * @returns all headers to send.
   */
  sign(
    method: string,
    path: string,
    query: string,
    headers: Readonly<Record<string, string>>,
    payloadHash: string,
    now = Date.now(),
  ): Record<string, string> {
    const { context } = this;
    const time = new Date(now + context.clockOffsetMs).toISOString().replace(/[-:]|\.\d{3}/g, "");
    const day = time.slice(0, 8);
    const all: Record<string, string> = {
      ...context.headers,
      ...headers,
      "x-amz-content-sha256": payloadHash,
      "x-amz-date": time,
    };
    if (context.sessionToken !== undefined) all["x-amz-security-token"] = context.sessionToken;
    const names = Object.keys(all)
      .filter((name) => name === "host" || name.startsWith("x-amz-"))
      .sort();
    const signedHeaders = names.join(";");
    const canonical = [
      method,
      // Every service but S3 signs the path escaped once more than it is sent.
      path.split("/").map(encodeURIComponent).join("/"),
      query,
      ...names.map((name) => `${name}:${(all[name] as string).trim().replace(/ +/g, " ")}`),
      "",
      signedHeaders,
      payloadHash,
    ].join("\n");
    const scope = `${day}/${context.region}/${context.service}/aws4_request`;
    const toSign = `AWS4-HMAC-SHA256\n${time}\n${scope}\n${createHash("sha256").update(canonical).digest("hex")}`;
    const signature = createHmac("sha256", this.#keyOf(day)).update(toSign).digest("hex");
    all.authorization = `AWS4-HMAC-SHA256 Credential=${context.accessKeyId}/${scope}, SignedHeaders=${signedHeaders}, Signature=${signature}`;
    return all;
  }

  /** The key of a day, derived once. */
  #keyOf(day: string): Buffer {
    if (day !== this.#day) {
      const { secretAccessKey, region, service } = this.context;
      const parts = [day, region, service, "aws4_request"];
      this.#key = parts.reduce<Buffer>(
        (key, part) => createHmac("sha256", key).update(part).digest(),
        Buffer.from(`AWS4${secretAccessKey}`, "utf8"),
      );
      this.#day = day;
    }
    return this.#key;
  }
}
