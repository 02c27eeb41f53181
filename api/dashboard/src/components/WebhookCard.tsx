import { useState } from "react";

import { ApiError, get, post, remove } from "../api/client";
import type { Delivery, Page, Webhook } from "../api/types";
import { age } from "../format";
import { usePoll } from "../hooks/usePoll";
import { DeliveryRow } from "./DeliveryRow";
import { Notice } from "./Notice";

const SHOWN = 20;

/** The dead ones, which need somebody, and below them the newest. */
async function deliveries(path: string, signal: AbortSignal): Promise<Delivery[]> {
  const [dead, newest] = await Promise.all([
    get<Page<Delivery>>(`${path}/deliveries?status=dead&limit=${SHOWN}`, signal),
    get<Page<Delivery>>(`${path}/deliveries?limit=${SHOWN}`, signal),
  ]);
  return [...dead.data, ...newest.data.filter((one) => one.status !== "dead")];
}

export function WebhookCard({ webhook, onDeleted }: { webhook: Webhook; onDeleted: () => void }) {
  const path = `/v1/webhooks/${webhook.id}`;
  const { data, error, refresh } = usePoll(path, (signal) => deliveries(path, signal), 2000);
  const [refused, setRefused] = useState<ApiError | null>(null);
  const [sure, setSure] = useState(false);
  const dead = data?.filter((one) => one.status === "dead").length ?? 0;

  const act = async (deed: () => Promise<unknown>, then: () => void): Promise<void> => {
    setRefused(null);
    try {
      await deed();
      then();
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      setRefused(cause);
    }
  };

  return (
    <article className="card stack" data-webhook={webhook.id}>
      <h2 className="webhook-url mono">{webhook.url}</h2>
      <dl className="facts">
        <dt>Events</dt><dd className="mono">{webhook.events.join(", ") || "all"}</dd>
        <dt>Made</dt><dd>{age(webhook.created_at)}</dd>
      </dl>
      <div className="row">
        <button type="button" className="button primary"
          onClick={() => void act(() => post<Delivery>(`${path}/test`), refresh)}>
          Send a test
        </button>
        {sure ? (
          <>
            <button type="button" className="button danger" onClick={() => void act(() => remove(path), onDeleted)}>
              Delete this webhook
            </button>
            <button type="button" className="button bare" onClick={() => setSure(false)}>Keep</button>
          </>
        ) : (
          <button type="button" className="button" onClick={() => setSure(true)}>Delete</button>
        )}
      </div>
      <Notice error={refused ?? error} />
      {dead > 0 && (
        <p className="wrong">
          {dead === SHOWN ? `${dead} or more` : dead} did not arrive, and every try is used up. Mend the receiver, then
          replay.
        </p>
      )}
      {data && data.length === 0 && <p className="quiet small">Nothing was sent yet.</p>}
      {data && data.length > 0 && (
        <ul className="deliveries" aria-label={`Deliveries to ${webhook.url}`}>
          {data.map((delivery) => (
            <DeliveryRow key={delivery.id} delivery={delivery}
              onReplay={() => void act(() => post<Delivery>(`${path}/deliveries/${delivery.id}/replay`), refresh)} />
          ))}
        </ul>
      )}
    </article>
  );
}
