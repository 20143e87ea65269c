from kapelle.adapters.workspaces.repositories import GitRepositories
from kapelle.core.ports import Repositories
from kapelle.testing.conformance.repositories import RepositoriesSuite


class TestGitRepositories(RepositoriesSuite):
    def repositories(self) -> Repositories:
        return GitRepositories()
