import { useState } from "react";

import { get } from "../api/client";
import type { NewWebhook, Page, Webhook } from "../api/types";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { Snippet } from "../components/Snippet";
import { WebhookCard } from "../components/WebhookCard";
import { WebhookForm } from "../components/WebhookForm";
import { usePoll } from "../hooks/usePoll";

const PATH = "/v1/webhooks?limit=100";

export function WebhooksPage() {
  const { data, error, refresh } = usePoll(PATH, (signal) => get<Page<Webhook>>(PATH, signal), 10_000);
  const [made, setMade] = useState<NewWebhook | null>(null);

  const onMade = (webhook: NewWebhook): void => {
    setMade(webhook);
    refresh();
  };

  return (
    <>
      <PageHead title="Webhooks" lead="URLs that hear of what happens to jobs, at least once, in signed requests." />
      <Notice error={error} />
      <div className="stack">
        {made?.secret && (
          <section className="card stack" aria-labelledby="secret">
            <h2 id="secret">Keep this secret now</h2>
            <p className="quiet">
              The receiver checks signatures with it, as Standard Webhooks say. It is not shown again.
            </p>
            <Snippet text={made.secret} label={`Secret of ${made.url}`} />
            <div className="row">
              <button type="button" className="button" onClick={() => setMade(null)}>I have kept it</button>
            </div>
          </section>
        )}
        {data && data.data.length === 0 && (
          <div className="empty">
            <h2>No webhooks yet</h2>
            <p className="quiet">Add a URL below, and jobs tell it when they start, finish or fail.</p>
          </div>
        )}
        {data?.data.map((webhook) => <WebhookCard key={webhook.id} webhook={webhook} onDeleted={refresh} />)}
        <WebhookForm onMade={onMade} />
      </div>
    </>
  );
}
