from kapelle.adapters.workspaces.repositories import GitRepositories
from kapelle.core.git import Repositories
from kapelle.testing.conformance.repositories import RepositoriesSuite


class TestGitRepositories(RepositoriesSuite):
    def repositories(self) -> Repositories:
        return GitRepositories()
