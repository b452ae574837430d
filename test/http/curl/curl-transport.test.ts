/** libcurl's transport keeps the contract, in a thread that does other work too. */
import { CurlTransport } from "../../../src/http/curl/curl-transport.js";
import { loadCurl } from "../../../src/http/curl/library.js";
import { transportConformance } from "../conformance/suite.js";

transportConformance("libcurl", (settings) => {
  const curl = loadCurl();
  if (typeof curl === "string") throw new Error(`libcurl: ${curl}`);
  return new CurlTransport(curl, settings, false);
});
