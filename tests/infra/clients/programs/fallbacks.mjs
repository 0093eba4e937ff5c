const c = new client.Client("http://127.0.0.1:9", { deadlineMs: 1, timeoutMs: 1, restMs: 3600000 });
const told = [];
for (const asked of given[0]) {
  const found = await error(() => c.decide("news", asked));
  told.push(found.done ? [found.done.action_id, (found.done.slots ?? []).map((slot) => slot.action_id)] : found.name);
}
console.log(JSON.stringify(told));
