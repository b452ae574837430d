/**
 * A stand-in for AWS STS and EBS in one server: roles are assumed, lists are given to those who sign with
 * the role's latest key. Its clock may be another than this machine's; requests signed too far from it are refused.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** Source: AWS General Reference, "Signature version 4": requests must be signed within 5 minutes (STS: 15). */
const MAX_SKEW_MS = 300_000;

export interface StsRequest {
  readonly action: string;
  readonly parameters: Readonly<Record<string, string>>;
  /** Access key that signed it; undefined where it is not signed. */
  readonly key: string | undefined;
  readonly region: string | undefined;
}

export class StsStub {
  readonly #server: Server;
  /** Added to this machine's clock, ms. */
  clockMs = 0;
  /** How long the credentials last, ms. */
  lifeMs = 3_600_000;
  /** What to do about the next calls to STS instead of giving credentials: a status and an error's name. */
  readonly refusals: (readonly [number, string])[] = [];
  /** Requests for lists and blocks that are refused with ExpiredTokenException. */
  expired = 0;
  readonly calls: StsRequest[] = [];
  /** Requests for lists that were refused because of their date, and all of them. */
  skewed = 0;
  lists = 0;
  /** Given instead of a new access key each time; those who assume the role sign with it. */
  keys: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  #issued = 0;

  static async start(): Promise<StsStub> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new StsStub(server);
  }

  private constructor(server: Server) {
    this.#server = server;
    server.on("request", (request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => this.#respond(request, response, Buffer.concat(chunks).toString()));
    });
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #respond(request: IncomingMessage, response: ServerResponse, body: string): void {
    const now = Date.now() + this.clockMs;
    response.sendDate = false;
    response.setHeader("date", new Date(now).toUTCString());
    const { authorization = "", "x-amz-date": date } = request.headers;
    const [, key, region] = /Credential=([^/]*)\/\d+\/([^/]*)\//.exec(authorization) ?? [];
    const isSkewed = key !== undefined && Math.abs(timeOf(String(date)) - now) > MAX_SKEW_MS;
    if (request.method === "POST" && request.url === "/") {
      const parameters = Object.fromEntries(new URLSearchParams(body));
      this.calls.push({ action: parameters.Action ?? "", parameters, key, region });
      const refusal = isSkewed ? ([403, "SignatureDoesNotMatch"] as const) : this.refusals.shift();
      if (refusal === undefined) {
        this.#issued += 1;
        response.end(this.#credentials(parameters.Action ?? "", now));
      } else refuseInXml(response, ...refusal);
    } else this.#list(response, now, key, isSkewed);
  }

  #list(response: ServerResponse, now: number, key: string | undefined, isSkewed: boolean): void {
    this.lists += 1;
    if (isSkewed) {
      this.skewed += 1;
      refuse(response, 403, "InvalidSignatureException", "Signature expired");
    } else if (this.expired > 0) {
      this.expired -= 1;
      refuse(response, 400, "ExpiredTokenException", "The security token is expired");
    } else if (key === `ROLEKEY${this.#issued}`) {
      const list = { Blocks: [], BlockSize: 524288, VolumeSize: 1, ExpiryTime: now / 1000 + 3600 };
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(list));
    } else refuse(response, 403, "UnrecognizedClientException", "No such key");
  }

  #credentials(action: string, now: number): string {
    const expiration = new Date(now + this.lifeMs).toISOString();
    const keys = this.keys ?? { accessKeyId: `ROLEKEY${this.#issued}`, secretAccessKey: "secret" };
    return `<${action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><${action}Result>
      <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/r/s</Arn><AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser>
      <Credentials><AccessKeyId>${keys.accessKeyId}</AccessKeyId><SecretAccessKey>${keys.secretAccessKey}</SecretAccessKey>
      <SessionToken>token</SessionToken><Expiration>${expiration}</Expiration></Credentials>
    </${action}Result><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></${action}Response>`;
  }
}

function refuse(response: ServerResponse, status: number, name: string, message: string): void {
  response.statusCode = status;
  response.setHeader("x-amzn-errortype", name);
  response.end(JSON.stringify({ Message: message }));
}

function refuseInXml(response: ServerResponse, status: number, name: string): void {
  response.statusCode = status;
  response.end(
    `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>${name}</Code><Message>it says ${name}</Message></Error><RequestId>r</RequestId></ErrorResponse>`,
  );
}

/** Of `20261124T041500Z`. */
function timeOf(date: string): number {
  const iso = date.replace(/^(\d{4})(\d\d)(\d\dT\d\d)(\d\d)(\d\dZ)$/, "$1-$2-$3:$4:$5");
  return Date.parse(iso);
}
