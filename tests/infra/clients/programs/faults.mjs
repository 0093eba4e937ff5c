import { createServer } from "node:http";
const asked = [];
let script = [];
let refuses = new Set();
const server = createServer((request, response) => {
  let text = "";
  request.on("data", (part) => { text += part; });
  request.on("end", () => {
    const body = text ? JSON.parse(text) : null;
    asked.push(body);
    const next = script.shift();
    if (next === "cut") return request.socket.destroy();
    if (next) { response.writeHead(next, { "retry-after": "0" }); return response.end('{"detail":"scripted","type":"urn:decision:problem:unavailable"}'); }
    if (request.url.endsWith("/outcomes")) {
      const all = Array.isArray(body) ? body : [body];
      const bad = all.some((one) => refuses.has(one.event_id));
      response.writeHead(bad ? 422 : 202);
      return response.end(bad ? '{"detail":"value: too large"}' : JSON.stringify({ accepted: all.length }));
    }
    response.writeHead(200);
    response.end(JSON.stringify({ event_id: body.event_id, action_id: "b", propensity: 0.5, ranking: [], policy_version: "7", mode: "online", later: 1 }));
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const address = `http://127.0.0.1:${server.address().port}`;
const losses = [];
const told = {};
const quick = { deadlineMs: 1, timeoutMs: 20000, firstWaitMs: 1, longestWaitMs: 2, restMs: 0, onLoss: (loss) => losses.push(loss) };
const question = { context: {}, actions: [{ id: "a" }, { id: "b" }] };
script = [503, "cut", 408, 502];
let c = new client.Client(address, { ...quick, deadlineMs: 60000 });
told.again = [(await c.decide("cards", question)).action_id, new Set(asked.map((one) => one.event_id)).size, asked.length];
c = new client.Client(address, quick);
script = Array(1000).fill(503);
told.fallen = await c.decide("cards", { ...question, event_id: "f" });
script = ["cut", ...Array(1000).fill(503)];
told.maybe = (await c.decide("cards", { ...question, event_id: "m" })).fallback.maybeLogged;
script = Array(1000).fill(503);
told.none = await error(() => new client.Client(address, { ...quick, fallback: "none" }).decide("cards", question));
script = [];
told.named = await c.outcome("cards", { event_id: "f", value: 1 }).then(() => asked.at(-1).action_id);
told.counts = c.counts();

const kept = new Map();
const storage = { get length() { return kept.size; }, key: (n) => [...kept.keys()][n] ?? null, getItem: (k) => kept.get(k) ?? null,
  setItem: (k, v) => kept.set(k, v), removeItem: (k) => kept.delete(k) };
storage.setItem("another's", "untouched");
c = new client.Client(address, { ...quick, queue: new client.WebStore(storage) });
script = Array(23).fill(503);
for (let n = 0; n < 23; n++) await c.outcome("cards", { event_id: `o-${n}`, value: n });
refuses = new Set(["o-3", "o-17"]);
c = new client.Client(address, { ...quick, queue: new client.WebStore(storage) });
told.waiting = await c.waiting();
told.left = await c.flush(20000);
told.refusals = (await c.refusals()).map((one) => [one.outcome.event_id, one.problem.detail]);
for (let n = 0; n < 2; n++) await c.outcome("cards", { event_id: `p-${n}`, value: 0 });
script = [503];
await c.outcome("cards", { event_id: "waits", value: 0 });
for (let n = 0; n < 1100; n++) await c.forgetRefusals();
told.lines = kept.size;
script = [];
refuses.add("waits");
told.still = await c.flush(20000);
c = new client.Client(address, { ...quick, queue: new client.WebStore(storage) });
told.after = [await c.waiting(), (await c.refusals()).length, await c.forgetRefusals(), storage.getItem("another's")];

c = new client.Client(address, { ...quick, queueLimit: 2 });
script = [503, 503];
await c.outcome("cards", { event_id: "q-0", value: 0 });
told.full = await error(() => c.outcome("cards", { event_id: "q-1", value: 0 }, { event_id: "q-2", value: 0 }));
script = Array(1000).fill(503);
await c.close();
told.lost = c.counts().lost;
told.losses = losses.map((loss) => [loss.kind, loss.eventId]);
server.close();
server.closeAllConnections();
console.log(JSON.stringify(told));
