"""The one room that knows the pilot's variables: simulator, views, recipe, study files, comparators."""
