import type { ReactNode } from "react";

import { Shell } from "./components/Shell";
import { DatasetsPage } from "./pages/DatasetsPage";
import { EndpointsPage } from "./pages/EndpointsPage";
import { JobPage } from "./pages/JobPage";
import { JobsPage } from "./pages/JobsPage";
import { MethodsPage } from "./pages/MethodsPage";
import { NotFoundPage } from "./pages/NotFoundPage";
import { PlaygroundPage } from "./pages/PlaygroundPage";
import { StudentPage } from "./pages/StudentPage";
import { StudentsPage } from "./pages/StudentsPage";
import { SubmitPage } from "./pages/SubmitPage";
import { TeachersPage } from "./pages/TeachersPage";
import { WebhooksPage } from "./pages/WebhooksPage";
import { usePath } from "./router";

function page(path: string): ReactNode {
  const [, section, id, ...rest] = path.replace(/\/$/, "").split("/");
  if (rest.length > 0) return <NotFoundPage />;
  if (section === undefined || section === "") return <JobsPage />;
  if (section === "jobs" && id === "new") return <SubmitPage />;
  if (section === "jobs") return id ? <JobPage key={id} id={id} /> : <JobsPage />;
  if (section === "students") return id ? <StudentPage key={id} id={id} /> : <StudentsPage />;
  if (id !== undefined) return <NotFoundPage />;
  if (section === "endpoints") return <EndpointsPage />;
  if (section === "playground") return <PlaygroundPage />;
  if (section === "methods") return <MethodsPage />;
  if (section === "teachers") return <TeachersPage />;
  if (section === "datasets") return <DatasetsPage />;
  if (section === "webhooks") return <WebhooksPage />;
  return <NotFoundPage />;
}

export function App() {
  return <Shell>{page(usePath())}</Shell>;
}
