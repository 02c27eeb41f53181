import { useState } from "react";
import type { FormEvent } from "react";

import { ApiError, post } from "../api/client";
import type { EventType, NewWebhook } from "../api/types";
import { Notice } from "./Notice";

const TYPES: readonly EventType[] = [
  "job.queued",
  "job.starting",
  "job.running",
  "job.finishing",
  "job.paused",
  "job.succeeded",
  "job.failed",
  "job.cancelled",
  "job.student",
];

export function WebhookForm({ onMade }: { onMade: (webhook: NewWebhook) => void }) {
  const [url, setUrl] = useState("");
  const [events, setEvents] = useState<readonly EventType[]>([]);
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const wrong = error?.errors.find((entry) => entry.pointer === "/url")?.detail;

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      onMade(await post<NewWebhook>("/v1/webhooks", { url, events }));
      setUrl("");
      setEvents([]);
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      setError(cause);
    } finally {
      setBusy(false);
    }
  };

  const toggle = (type: EventType, on: boolean): void =>
    setEvents(TYPES.filter((one) => (one === type ? on : events.includes(one))));

  return (
    <section className="card" aria-labelledby="add-webhook">
      <div className="card-head"><h2 id="add-webhook">Add a webhook</h2></div>
      <form className="stack" onSubmit={(event) => void submit(event)}>
        <div className="field">
          <label htmlFor="webhook-url">URL</label>
          <input id="webhook-url" type="url" required maxLength={2000} value={url} aria-invalid={wrong !== undefined}
            aria-describedby={wrong ? "webhook-wrong" : undefined} placeholder="https://example.com/fewstep"
            onChange={(event) => setUrl(event.target.value)} />
          {wrong && <span className="wrong" id="webhook-wrong" role="alert">{wrong}</span>}
        </div>
        <fieldset className="event-types">
          <legend>Events <span className="quiet">(none chosen: all of them)</span></legend>
          {TYPES.map((type) => (
            <label key={type} className="check mono">
              <input type="checkbox" checked={events.includes(type)}
                onChange={(event) => toggle(type, event.target.checked)} />
              {type}
            </label>
          ))}
        </fieldset>
        {!wrong && <Notice error={error} />}
        <div className="row">
          <button type="submit" className="button primary" disabled={busy}>Add the webhook</button>
        </div>
      </form>
    </section>
  );
}
