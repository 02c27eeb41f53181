import type { Delivery } from "../api/types";
import { age, duration } from "../format";
import { Link } from "../router";
import { StatusMark } from "./StatusMark";

function job(delivery: Delivery): string | null {
  const data = delivery.payload["data"];
  if (typeof data !== "object" || data === null || !("job" in data)) return null;
  return String(data.job);
}

function course({ attempts, due_at, last_status }: Delivery): string {
  const tries = attempts === 0 ? "not tried yet" : attempts === 1 ? "1 try" : `${attempts} tries`;
  const answer = last_status === null ? "" : `, HTTP ${last_status}`;
  const wait = due_at === null ? 0 : (Date.parse(due_at) - Date.now()) / 1000;
  return tries + answer + (wait > 1 ? `, next in ${duration(wait)}` : "");
}

/** One delivery, and a way to send it again once it is over. */
export function DeliveryRow({ delivery, onReplay }: { delivery: Delivery; onReplay: () => void }) {
  const about = job(delivery);
  return (
    <li data-delivery={delivery.id}>
      <StatusMark status={delivery.status} />
      <div className="delivery-what">
        <span className="mono">{delivery.type}</span>
        <span className="quiet small">
          {age(delivery.created_at)}, {course(delivery)}
          {about && <> · <Link href={`/jobs/${about}`}>its job</Link></>}
        </span>
        {delivery.last_error && <span className="small delivery-error">{delivery.last_error}</span>}
      </div>
      {delivery.due_at === null && (
        <button type="button" className="button" onClick={onReplay} aria-label={`Replay ${delivery.type} ${delivery.id}`}>
          Replay
        </button>
      )}
    </li>
  );
}
