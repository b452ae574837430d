/**
 * Whose blocks these are: the service, the region and the account that requests go to, found without one
 * request (captured-request.ts). The account is named by its id where the source of the credentials tells it
 * (SSO and assumed roles do); else the access key stands for it, and a new key is another account to us.
 */
import { captureRequest } from "./captured-request.js";
import { type ClientOptions, makeSdk, openPlace } from "./client.js";

/** Of a request for credentials, as in HttpRequest, ms. */
const STALL_MS = 15_000;

/** @throws what the SDK throws where it finds no region or credentials. */
export async function serviceIdentity(options: ClientOptions): Promise<string> {
  const place = await openPlace(options, 1, STALL_MS);
  const sdk = makeSdk(place);
  try {
    const { request, accessKeyId, region } = await captureRequest(sdk);
    const { protocol, hostname, port, path } = request;
    const { accountId } = await sdk.config.credentials();
    return JSON.stringify({
      endpoint: [protocol, hostname, port ?? "", path],
      region,
      account: accountId === undefined ? { accessKeyId } : { accountId },
    });
  } finally {
    sdk.destroy();
    await place.transport.close();
  }
}
