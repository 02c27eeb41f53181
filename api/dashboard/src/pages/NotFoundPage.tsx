import { PageHead } from "../components/PageHead";
import { Link } from "../router";

export function NotFoundPage() {
  return (
    <>
      <PageHead title="Nothing here" lead="No page has this address." />
      <Link href="/jobs" className="button">All jobs</Link>
    </>
  );
}
